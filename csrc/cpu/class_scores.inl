// One-shot scores per class: the best or the mean score of a class's supports. Supports are packed sorted by class, so that a class is a
// run of columns, reduced as soon as a tile of its scores exists; the score matrix is never written.
//
// Scores but the product's are sums over exact differences: two instructions an element for squares, three for the Koch head and
// manhattan, one for dot.

// Supports sorted by class (stable): support order[n] is the n-th; class c holds start[c] .. start[c + 1] - 1.
struct SortedSupports {
  SortedSupports(const int64_t* class_index, int64_t supports, int64_t classes) : order(supports), start(classes + 1), sorted(supports) {
    std::fill(start.get(), start.get() + classes + 1, int64_t(0));
    for (int64_t j = 0; j < supports; ++j) {
      if (class_index[j] < 0 || class_index[j] >= classes) throw std::out_of_range("class_index out of range");
      ++start[class_index[j] + 1];
    }
    for (int64_t c = 0; c < classes; ++c) start[c + 1] += start[c];
    Buffer<int64_t> next(classes + 1);
    std::copy(start.get(), start.get() + classes + 1, next.get());
    for (int64_t j = 0; j < supports; ++j) {
      const int64_t at = next[class_index[j]]++;
      order[at] = j;
      sorted[at] = class_index[j];
    }
  }
  Buffer<int64_t> order, start;
  Buffer<int64_t> sorted;  // the class of each, in order
};

template <class Form, class S>
struct ClassReduction {
  using T = Compute<S>;
  using L = Simd<T>;
  const ClassScores& p;
  const SortedSupports& supports;
  const T* weight;
  T scale, offset;  // score = scale * sum + offset
  const T *row_offset, *column_offset;

  // Folds one row of a tile into the scores of its classes.
  void fold(const T* values, int64_t begin, int64_t end, T* out) const {
    for (int64_t j = begin; j < end;) {
      const int64_t c = supports.sorted[j];
      const int64_t stop = std::min(end, supports.start[c + 1]);
      T best = out[c], total = 0;
      for (; j < stop; ++j) {
        const T value = values[j - begin];
        total += value;
        if (value > best) best = value;
      }
      out[c] = p.mean ? out[c] + total : best;
    }
  }

  void run() const {
    constexpr int C = kColumns<T>;
    const Operands<S> operands = {static_cast<const S*>(p.q), static_cast<const S*>(p.s), p.depth, weight, supports.order.get(), nullptr};
    Split s = split<Form, T>(p.queries, 1, p.depth, p.threads);  // rows only: a class's sum has one order of additions
    s.column_step = p.supports;
    s.column_tasks = 1;
    T* scores = static_cast<T*>(p.scores);
    const auto enter = [](int64_t, int64_t) {};
    for_tasks<TaskScratch<Form, S>>(s, p.depth, p.threads, [&](int64_t task, TaskScratch<Form, S>& scratch) {
      for_tiles<Form, S>(operands, s.rows(task, p.queries), {0, p.supports}, scratch, enter, [&](int64_t i, int64_t j, auto& sums) {
        const int rows = static_cast<int>(std::min<int64_t>(Form::rows, p.queries - i));
        for (int r = 0; r < rows; ++r) {
          alignas(64) T values[C];
          for (int v = 0; v < 2; ++v) {
            const auto own = L::set1(offset + row_offset[i + r]) + L::load(column_offset + j + v * L::lanes);
            auto value = L::fma(sums[r][v], L::set1(scale), own);
            if (p.metric == Metric::kEuclidean) value = L::zero() - L::sqrt(value);
            L::store(values + v * L::lanes, value);
          }
          fold(values, j, std::min(j + C, p.supports), scores + (i + r) * p.classes);
        }
      });
    });
  }
};

template <class S>
struct ClassScoresKernel {
  using T = Compute<S>;

  template <class Form>
  static void reduce(const ClassScores& p, const SortedSupports& supports, const T* weight, T scale, T offset) {
    Buffer<T> rows(p.queries), columns(round_up(p.supports, kColumns<T>));
    const S *q = static_cast<const S*>(p.q), *s = static_cast<const S*>(p.s);
    const bool cosine = p.metric == Metric::kCosine;  // score = 1 - (|q-s|^2 + [q zero] + [s zero]) / 2
    for (int64_t i = 0; i < p.queries; ++i) rows[i] = cosine ? T(-0.5) * is_zero_row(q + i * p.depth, p.depth) : T(0);
    for (int64_t j = 0; j < p.supports; ++j) columns[j] = cosine ? T(-0.5) * is_zero_row(s + supports.order[j] * p.depth, p.depth) : T(0);
    for (int64_t j = p.supports; j < round_up(p.supports, kColumns<T>); ++j) columns[j] = 0;
    ClassReduction<Form, S>{p, supports, weight, scale, offset, rows.get(), columns.get()}.run();
  }

  static void run(const ClassScores& p) {
    T* scores = static_cast<T*>(p.scores);
    const SortedSupports supports(p.class_index, p.supports, p.classes);
    std::fill(scores, scores + p.queries * p.classes, p.mean ? T(0) : -std::numeric_limits<T>::infinity());
    if (p.queries > 0 && p.supports > 0) {
      switch (p.metric) {
        case Metric::kEuclidean: reduce<SquareDifference>(p, supports, nullptr, T(1), T(0)); break;
        case Metric::kSqEuclidean: reduce<SquareDifference>(p, supports, nullptr, T(-1), T(0)); break;
        case Metric::kCosine: reduce<SquareDifference>(p, supports, nullptr, T(-0.5), T(1)); break;
        case Metric::kDot: reduce<Product>(p, supports, nullptr, T(1), T(0)); break;
        case Metric::kManhattan: reduce<WeightedAbs>(p, supports, Filled<T>(p.depth, T(-1)).get(), T(1), T(0)); break;
        case Metric::kKoch: reduce<WeightedAbs>(p, supports, static_cast<const T*>(p.weight), T(1), *static_cast<const T*>(p.bias)); break;
      }
    }
    if (!p.mean) return;
    for (int64_t i = 0; i < p.queries; ++i)
      for (int64_t c = 0; c < p.classes; ++c) {
        const int64_t members = supports.start[c + 1] - supports.start[c];
        T& value = scores[i * p.classes + c];
        value = members > 0 ? value / static_cast<T>(members) : -std::numeric_limits<T>::infinity();
      }
  }
};

void class_scores(const ClassScores& p) { by_dtype<ClassScores, ClassScoresKernel>(p); }
