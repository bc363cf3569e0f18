// The best score of each class by two looks: the product form, one instruction an element instead of two, says which supports can be the
// nearest of their class; only these, nearly always one, are scored by exact differences. The result is that of scoring all of them.
//
// Supports stand sorted by class, as in class_scores.inl. Of each query, lane by lane while a class passes by: the best product score, its
// column, and the second best. At the end of the class the lanes that come within the error of the product form of the best are scored
// exactly, a lane whose second best does too from end to end. The error: |computed - q.s + |s|^2 / 2| <= gamma_n (|q| |s| + |s|^2 / 2),
// gamma_n = n u / (1 - n u), n the longest chain of additions (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
//
// Instructions an element: one fma. A vector of scores costs six more (add, compare, two blends, min, max), 5 % at D = 128; a class and
// query one fold of lanes and one exact distance, as much as 16 elements of each support where a class has 16: it then pays off.

constexpr int64_t kFewOfClass = 16;

inline bool serves_best(const ClassScores& p) {
  const bool by_square = p.metric == Metric::kEuclidean || p.metric == Metric::kSqEuclidean || p.metric == Metric::kCosine;
  return by_square && !p.mean && p.supports >= kFewOfClass * p.classes;
}

template <class S>
struct ClassBest {
  using T = Compute<S>;
  using L = Simd<T>;
  using Int = typename L::Int;
  const ClassScores& p;
  const SortedSupports& supports;
  const S *q, *s;
  Buffer<T> offset, reach, length;  // of each column; the longest support of each class; of each query

  ClassBest(const ClassScores& params, const SortedSupports& sorted)
      : p(params),
        supports(sorted),
        q(static_cast<const S*>(p.q)),
        s(static_cast<const S*>(p.s)),
        offset(round_up(p.supports, kColumns<T>)),
        reach(p.classes),
        length(p.queries) {
    for_chunks(p.queries, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) length[i] = std::sqrt(squared_norm(q + i * p.depth, p.depth));
    });
    for_chunks(p.classes, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) measure(c);
    });
    std::fill(offset.get() + p.supports, offset.get() + round_up(p.supports, kColumns<T>), std::numeric_limits<T>::quiet_NaN());
  }

  void measure(int64_t c) {
    T longest = 0;
    for (int64_t n = supports.start[c]; n < supports.start[c + 1]; ++n) {
      const T square = squared_norm(s + supports.order[n] * p.depth, p.depth);
      offset[n] = p.metric == Metric::kCosine ? T(0) : square / T(-2);
      if (square > longest) longest = square;
    }
    reach[c] = std::sqrt(longest);
  }

  // How far below the best product score the nearest support may stand; infinite or NaN where a norm overflows or is NaN.
  T doubt(int64_t i, int64_t c) const {
    const T chain = static_cast<T>(std::min(p.depth, kFold) + (p.depth + kFold - 1) / kFold + 8);
    const T gamma = chain * std::numeric_limits<T>::epsilon();  // twice n u, which also covers 1 / (1 - n u)
    return 2 * gamma * (length[i] * reach[c] + reach[c] * reach[c]);
  }

  T exact(int64_t i, int64_t column) const {
    const S *x = q + i * p.depth, *y = s + supports.order[column] * p.depth;
    if (p.metric == Metric::kCosine) return T(1) - row_distance<Metric::kCosine>(x, y, p.depth);
    const T square = row_distance<Metric::kSqEuclidean>(x, y, p.depth);
    return p.metric == Metric::kEuclidean ? -std::sqrt(square) : -square;
  }

  struct Scratch {
    Scratch(const Split& split, int64_t depth) : tiles(split, depth), best(split.row_step), second(split.row_step * L::lanes) {}
    void clear(int64_t rows) {
      best.clear(rows);
      std::fill(second.get(), second.get() + rows * L::lanes, -std::numeric_limits<T>::infinity());
    }
    TaskScratch<Product, S> tiles;
    LaneBest<T> best;
    Buffer<T> second;
  };

  // Joins a vector of scores to what the lanes of a row have met; NaN lanes count for nothing.
  static void join(typename L::V score, typename L::VI number, T* value, Int* index, T* second) {
    auto best = L::load(value);
    auto at = L::load(index);
    L::store(second, L::max(L::min(best, score), L::load(second)));
    L::template keep_larger<false>(L::all(), score, number, best, at);
    L::store(value, best);
    L::store(index, at);
  }

  // The lanes of a query that may hold the nearest of a class, and those whose second best may be it too; no lane near: any support may.
  struct Lanes {
    unsigned near, crowded;
  };

  Lanes judge(int64_t i, int64_t c, const T* value, const T* second) const {
    const auto values = L::load(value);
    const T limit = L::largest(values) - doubt(i, c);
    if (!(limit > -std::numeric_limits<T>::max())) return {0, 0};  // a norm overflows, or nothing was comparable
    return {L::greater(values, L::set1(limit)), L::greater(L::load(second), L::set1(limit))};
  }

  T settle(int64_t i, int64_t c, Lanes lanes, const Int* index) const {
    const int64_t begin = supports.start[c], end = supports.start[c + 1];
    T score = -std::numeric_limits<T>::infinity();
    const auto offer = [&](int64_t column) {
      const T found = exact(i, column);
      if (found > score) score = found;
    };
    if (lanes.near == 0) {
      for (int64_t n = begin; n < end; ++n) offer(n);
      return score;
    }
    for (; lanes.near != 0; lanes.near &= lanes.near - 1) {
      const int lane = __builtin_ctz(lanes.near);
      if ((lanes.crowded >> lane & 1) == 0) {
        offer(index[lane]);
        continue;
      }
      for (int64_t n = begin + (lane - begin % L::lanes + L::lanes) % L::lanes; n < end; n += L::lanes) offer(n);
    }
    return score;
  }

  // One vector of columns, from `first` on, of `count` rows from i on: class by class.
  template <class Scores>
  void take(const Scores& scores, int v, int64_t i, int64_t count, int64_t first, int64_t row, Scratch& scratch) const {
    const auto number = L::from(static_cast<Int>(first));
    const int64_t stop = std::min(first + L::lanes, p.supports);
    for (int64_t begin = first, end; begin < stop; begin = end) {
      const int64_t c = supports.sorted[begin];
      end = std::min(stop, supports.start[c + 1]);
      const auto offsets = end - begin == L::lanes ? L::load(offset.get() + first) : only(first, begin, end);
      for (int64_t r = 0; r < count; ++r)
        join(scores[r][v] + offsets, number, scratch.best.value(row + r), scratch.best.index(row + r), second(scratch, row + r));
      if (end == supports.start[c + 1]) finish(i, count, c, row, scratch);
    }
  }

  // The offsets of a vector of columns, NaN for those outside begin..end-1.
  typename L::V only(int64_t first, int64_t begin, int64_t end) const {
    alignas(64) T lanes[L::lanes];
    std::fill(lanes, lanes + L::lanes, std::numeric_limits<T>::quiet_NaN());
    std::copy(offset.get() + begin, offset.get() + end, lanes + (begin - first));
    return L::load(lanes);
  }

  static T* second(const Scratch& scratch, int64_t row) { return scratch.second.get() + row * L::lanes; }

  // Judges all rows before it scores any, so that their chains of instructions overlap.
  void finish(int64_t i, int64_t count, int64_t c, int64_t row, Scratch& scratch) const {
    const auto nothing = L::set1(-std::numeric_limits<T>::infinity());
    Lanes lanes[Product::rows];
    for (int64_t r = 0; r < count; ++r) {
      T *value = scratch.best.value(row + r), *beside = second(scratch, row + r);
      lanes[r] = judge(i + r, c, value, beside);
      L::store(value, nothing);
      L::store(beside, nothing);
    }
    for (int64_t r = 0; r < count; ++r)
      static_cast<T*>(p.scores)[(i + r) * p.classes + c] = settle(i + r, c, lanes[r], scratch.best.index(row + r));
  }

  void run() const {
    const Operands<S> operands = {q, s, p.depth, nullptr, supports.order.get(), nullptr};
    const Split tasks = class_tasks<Product, T>(p);
    for_tasks<Scratch>(tasks, p.depth, p.threads, [&](int64_t task, Scratch& scratch) {
      const Range rows = tasks.rows(task, p.queries);
      scratch.clear(rows.end - rows.begin);
      for_tiles<Product, S>(
          operands, rows, {0, p.supports}, scratch.tiles, [](int64_t, int64_t) {},
          [&](int64_t i, int64_t j, auto& scores) {
            const int64_t count = std::min<int64_t>(Product::rows, rows.end - i);
            for (int v = 0; v < 2 && j + v * L::lanes < p.supports; ++v)
              take(scores, v, i, count, j + v * L::lanes, i - rows.begin, scratch);
          });
    });
  }
};
