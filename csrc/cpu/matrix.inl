// All distances of x [rows] and y [columns], or all Koch logits, written once; see tile.inl for shapes and instruction counts.
//
// Limit: the instruction mix of the form (2 an element for squares, 3 for the exact Koch head, 2 for its max form), and the output's page
// faults.

// score = scale * sum + row offset + column offset, then the root for euclidean.
template <class S>
struct Finish {
  using T = Compute<S>;
  Finish(int64_t rows, int64_t columns) : row(rows), column(round_up(columns, kColumns<T>)) {}
  T scale = 1;
  bool root = false;
  Buffer<T> row, column;

  typename Simd<T>::V operator()(typename Simd<T>::V sum, int64_t i, int64_t j) const {
    using L = Simd<T>;
    const auto value = L::fma(sum, L::set1(scale), L::set1(row[i]) + L::load(column.get() + j));
    return root ? L::sqrt(value) : value;
  }
};

// sum_k w_k x_k, for the max form of the Koch head.
template <class S>
inline Compute<S> weighted_sum(const S* x, const Compute<S>* weight, int64_t depth) {
  using T = Compute<S>;
  return sum_over<T>(depth,
                     [&](int64_t k, int n, auto sum) { return Simd<T>::fma(load_lanes<T>(x, k, n), load_lanes<T>(weight, k, n), sum); });
}

template <class S, class F>
inline void fill_offsets(const Matrix& p, Finish<S>& finish, F&& offset) {
  const S *x = static_cast<const S*>(p.x), *y = static_cast<const S*>(p.y);
  for_chunks(p.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) finish.row[i] = offset(x + i * p.depth);
  });
  for_chunks(p.columns, p.threads, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) finish.column[j] = offset(y + j * p.depth);
  });
  for (int64_t j = p.columns; j < round_up(p.columns, kColumns<Compute<S>>); ++j) finish.column[j] = 0;
}

template <class S>
inline void prepare_finish(const Matrix& p, Finish<S>& finish) {
  using T = Compute<S>;
  const T* weight = static_cast<const T*>(p.weight);
  finish.root = p.metric == Metric::kEuclidean;
  if (p.metric == Metric::kCosine) {
    finish.scale = T(0.5);
    fill_offsets<S>(p, finish, [&](const S* row) { return T(0.5) * is_zero_row(row, p.depth); });
  } else if (p.metric == Metric::kKoch && !p.exact) {
    finish.scale = 2;
    fill_offsets<S>(p, finish, [&](const S* row) { return -weighted_sum(row, weight, p.depth); });
  } else {
    if (p.metric == Metric::kDot) finish.scale = -1;
    fill_offsets<S>(p, finish, [](const S*) { return T(0); });
  }
  if (p.metric == Metric::kKoch)
    for (int64_t i = 0; i < p.rows; ++i) finish.row[i] += *static_cast<const T*>(p.bias);
}

template <class Form, class S>
void write_matrix(const Matrix& p, const Compute<S>* weight, const Finish<S>& finish) {
  using T = Compute<S>;
  using L = Simd<T>;
  const Operands<S> operands = {static_cast<const S*>(p.x), static_cast<const S*>(p.y), p.depth, weight, nullptr, nullptr};
  const Split s = split<Form, T>(p.rows, p.columns, p.depth, p.threads);
  T* out = static_cast<T*>(p.out);
  for_tasks<TaskScratch<Form, S>>(s, p.depth, p.threads, [&](int64_t task, TaskScratch<Form, S>& scratch) {
    const auto enter = [](int64_t, int64_t) {};
    for_tiles<Form, S>(operands, s.rows(task, p.rows), s.columns(task, p.columns), scratch, enter, [&](int64_t i, int64_t j, auto& scores) {
      const int rows = static_cast<int>(std::min<int64_t>(Form::rows, p.rows - i));
      for (int r = 0; r < rows; ++r) {
        for (int v = 0; v < 2; ++v) {
          const int64_t column = j + v * L::lanes;
          const int64_t left = p.columns - column;
          if (left <= 0) break;
          const auto value = finish(scores[r][v], i + r, column);
          T* to = out + (i + r) * p.columns + column;
          left >= L::lanes ? L::store(to, value) : L::store(to, value, static_cast<int>(left));
        }
      }
    });
  });
}

template <class S>
struct MatrixKernel {
  static void run(const Matrix& p) {
    using T = Compute<S>;
    if (p.rows == 0 || p.columns == 0) return;
    Finish<S> finish(p.rows, p.columns);
    prepare_finish<S>(p, finish);
    const T* weight = static_cast<const T*>(p.weight);
    switch (p.metric) {
      case Metric::kDot: return write_matrix<Product, S>(p, nullptr, finish);
      case Metric::kManhattan: return write_matrix<WeightedAbs, S>(p, Filled<T>(p.depth, T(1)).get(), finish);
      case Metric::kKoch:
        return p.exact ? write_matrix<WeightedAbs, S>(p, weight, finish) : write_matrix<WeightedMax, S>(p, weight, finish);
      default: return write_matrix<SquareDifference, S>(p, nullptr, finish);
    }
  }
};

void matrix(const Matrix& p) { by_dtype<Matrix, MatrixKernel>(p); }
