// One-shot scores per class: the best or the mean score of a class's supports. Supports are packed sorted by class, so that a class is a
// run of columns, reduced as soon as a tile of its scores exists; the score matrix is never written. Vectors within one class are joined
// lane by lane (one instruction) and folded where the class ends; only the lanes of a vector that holds a border are joined one by one.
//
// Limit: scores but the product's are sums over exact differences: two instructions an element for squares, three for the Koch head and
// manhattan, one for dot. The best of large classes needs one (class_best.inl).

template <class Form, class S>
struct ClassReduction {
  using T = Compute<S>;
  using L = Simd<T>;
  const ClassScores& p;
  const SortedSupports& supports;
  const T* weight;
  T scale;  // score = scale * sum + row_offset + column_offset
  const T *row_offset, *column_offset;

  T identity() const { return p.mean ? T(0) : -std::numeric_limits<T>::infinity(); }
  typename L::V joined(typename L::V value, typename L::V so_far) const { return p.mean ? so_far + value : L::max(value, so_far); }
  T joined(T value, T so_far) const { return p.mean ? so_far + value : value > so_far ? value : so_far; }

  // Lanes first..first + count - 1 of a vector into the scores of their classes, one by one.
  void join_lanes(const T* values, int64_t first, int64_t count, T* out) const {
    for (int64_t n = 0; n < count; ++n) {
      T& score = out[supports.sorted[first + n]];
      score = joined(values[n], score);
    }
  }

  // Adds what the lanes gathered of the class that ends before `column`.
  void flush(T* lanes, int64_t column, T* out) const {
    if (column == 0) return;
    T& score = out[supports.sorted[column - 1]];
    for (int lane = 0; lane < L::lanes; ++lane) score = joined(lanes[lane], score);
    std::fill(lanes, lanes + L::lanes, identity());
  }

  // How a vector of columns stands to the classes.
  struct Place {
    int64_t first, count;
    bool whole, opens;  // all lanes within one class; which begins here
  };

  Place place(int64_t first) const {
    const int64_t count = std::min<int64_t>(L::lanes, p.supports - first), c = supports.sorted[first];
    return {first, count, count == L::lanes && supports.sorted[first + count - 1] == c, first > 0 && supports.sorted[first - 1] != c};
  }

  // A vector within one class is joined lane by lane; the lanes are folded where the class ends.
  void join(typename L::V value, const Place& at, T* lanes, T* out) const {
    if (!at.whole || at.opens) flush(lanes, at.first, out);
    if (at.whole) return L::store(lanes, joined(value, L::load(lanes)));
    alignas(64) T values[L::lanes];
    L::store(values, value);
    join_lanes(values, at.first, at.count, out);
  }

  struct Scratch {
    Scratch(const Split& split, int64_t depth) : tiles(split, depth), lanes(split.row_step * L::lanes) {}
    TaskScratch<Form, S> tiles;
    Buffer<T> lanes;  // of each row of the task
  };

  void run() const {
    const Operands<S> operands = {static_cast<const S*>(p.q), static_cast<const S*>(p.s), p.depth, weight, supports.order.get(), nullptr};
    const Split tasks = class_tasks<Form, T>(p);
    for_tasks<Scratch>(tasks, p.depth, p.threads, [&](int64_t task, Scratch& scratch) {
      const Range rows = tasks.rows(task, p.queries);
      T *lanes = scratch.lanes.get(), *scores = static_cast<T*>(p.scores);
      std::fill(lanes, lanes + (rows.end - rows.begin) * L::lanes, identity());
      const auto enter = [](int64_t, int64_t) {};
      for_tiles<Form, S>(operands, rows, {0, p.supports}, scratch.tiles, enter, [&](int64_t i, int64_t j, auto& sums) {
        const int64_t count = std::min<int64_t>(Form::rows, rows.end - i);
        for (int v = 0; v < 2 && j + v * L::lanes < p.supports; ++v) {
          const Place at = place(j + v * L::lanes);
          const auto column = L::load(column_offset + at.first), factor = L::set1(scale);
          for (int64_t r = 0; r < count; ++r) {
            auto value = L::fma(sums[r][v], factor, L::set1(row_offset[i + r]) + column);
            if (p.metric == Metric::kEuclidean) value = L::zero() - L::sqrt(value);
            join(value, at, lanes + (i + r - rows.begin) * L::lanes, scores + (i + r) * p.classes);
          }
        }
      });
      for (int64_t i = rows.begin; i < rows.end; ++i) flush(lanes + (i - rows.begin) * L::lanes, p.supports, scores + i * p.classes);
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
    for (int64_t i = 0; i < p.queries; ++i) rows[i] = offset - (cosine ? T(0.5) * is_zero_row(q + i * p.depth, p.depth) : T(0));
    for (int64_t j = 0; j < p.supports; ++j) columns[j] = cosine ? T(-0.5) * is_zero_row(s + supports.order[j] * p.depth, p.depth) : T(0);
    for (int64_t j = p.supports; j < round_up(p.supports, kColumns<T>); ++j) columns[j] = 0;
    ClassReduction<Form, S>{p, supports, weight, scale, rows.get(), columns.get()}.run();
  }

  static void run(const ClassScores& p) {
    T* scores = static_cast<T*>(p.scores);
    const SortedSupports supports(p.class_index, p.supports, p.classes);
    std::fill(scores, scores + p.queries * p.classes, p.mean ? T(0) : -std::numeric_limits<T>::infinity());
    if (p.queries > 0 && p.supports > 0) {
      if (serves_best(p)) return ClassBest<S>(p, supports).run();
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
