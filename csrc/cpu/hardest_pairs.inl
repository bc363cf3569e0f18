// Batch-hard mining: per row the farthest row of its class and the nearest row of another class.
//
// Negatives: tiles of the product form, score = x.y - (|x|^2 + |y|^2) / 2 = -d^2 / 2 (dot and cosine: the product; manhattan: -sum |x -
// y|), so one fma an element. Mining a batch against itself visits the upper triangle only: the score of (i, j) serves row i and row j. Per
// row only the best value and its index are kept: O(N). A tile's vector is compared with the best of its row and with the bests of its
// columns, two compares; only a vector that beats one of them is looked at further (a row's best is beaten about ln N times), label compare
// included. Each thread meets the candidates of a row in ascending order, so a strict compare keeps the lowest index; the threads' results
// are merged by (value, index), which does not depend on who did what.
//
// Positives: only K - 1 a row, found through lists of each class, by exact differences: tight classes are not mined from
// cancellation noise.
//
// Scores of -inf (a norm overflows, a row holds an infinity) never win above; an anchor left without a negative is then searched exactly.

// Best negative of each row so far.
template <class T>
struct Best {
  explicit Best(int64_t rows) : value(rows), index(rows) {
    std::fill(value.get(), value.get() + rows, -std::numeric_limits<T>::infinity());
    std::fill(index.get(), index.get() + rows, int32_t(-1));
  }
  Buffer<T> value;
  Buffer<int32_t> index;

  void merge(int64_t row, T v, int32_t i) {
    if (i >= 0 && (v > value[row] || (v == value[row] && i < index[row]) || index[row] < 0)) {
      value[row] = v;
      index[row] = i;
    }
  }
};

// One side of the product: rows packed for it, half squared norms subtracted from every score (NaN past the end: never a winner), classes.
template <class T>
struct MiningSide {
  MiningSide(int64_t rows, int64_t depth, int width) : padded(round_up(rows, width)), packed(padded * depth), offset(padded), id(padded) {}
  int64_t padded;
  Buffer<T> packed, offset;
  Buffer<int32_t> id;
};

template <class S>
inline void fill_side(const HardestPairs& p, const S* rows, int64_t count, const int32_t* id, int width, MiningSide<Compute<S>>& side) {
  using T = Compute<S>;
  for_chunks(
      count, p.threads,
      [&](int64_t, int64_t begin, int64_t end) {
        pack<T>(rows, nullptr, begin, end, p.depth, width, side.packed.get() + begin * p.depth);
        for (int64_t i = begin; i < end; ++i) {
          side.offset[i] = product_offset(p.metric, rows + i * p.depth, p.depth);
          side.id[i] = id[i];
        }
      },
      round_up(kRowChunk, width));
  for (int64_t i = count; i < side.padded; ++i) {
    side.offset[i] = std::numeric_limits<T>::quiet_NaN();
    side.id[i] = -2;
  }
}

// How the tiles of a task stand to the triangle of pairs. The scores of a tile above the diagonal serve its rows and its columns;
// candidates of a row come in ascending order, so a strict compare keeps the lowest index. On the diagonal they come in any order: equal
// scores are looked at too.
enum class Part { kRows, kAbove, kDiagonal };

template <Part P, class T>
inline bool wins(T score, int32_t index, T best, int32_t best_index) {
  if constexpr (P == Part::kDiagonal)
    return score > best || (score == best && index < best_index);
  else
    return score > best;
}

// What a vector of scores changes: the best of its row and the bests of its columns.
template <Part P, class T>
inline void take(typename Simd<T>::V score, const MiningSide<T>& y, int32_t id, int64_t row, int64_t first, Best<T>& best) {
  using L = Simd<T>;
  constexpr bool kEqualToo = P == Part::kDiagonal;
  unsigned by_row = L::template greater<kEqualToo>(score, L::set1(best.value[row])), by_column = 0;
  if constexpr (P != Part::kRows) by_column = L::template greater<kEqualToo>(score, L::load(best.value.get() + first));
  if ((by_row | by_column) == 0) return;
  const unsigned other = L::differs(y.id.get() + first, id);
  alignas(64) T values[L::lanes];
  L::store(values, score);
  for (by_row &= other; by_row != 0; by_row &= by_row - 1) {
    const int lane = __builtin_ctz(by_row);
    const auto column = static_cast<int32_t>(first + lane);
    if (!wins<P>(values[lane], column, best.value[row], best.index[row])) continue;
    best.value[row] = values[lane];
    best.index[row] = column;
  }
  for (by_column &= other; by_column != 0; by_column &= by_column - 1) {
    const int lane = __builtin_ctz(by_column);
    const int64_t column = first + lane;
    if (!wins<P>(values[lane], static_cast<int32_t>(row), best.value[column], best.index[column])) continue;
    best.value[column] = values[lane];
    best.index[column] = static_cast<int32_t>(row);
  }
}

template <class Form, Part P, class T>
inline __attribute__((always_inline)) void mine_tile(const MiningSide<T>& x, const MiningSide<T>& y, int64_t i, int64_t j, int64_t depth,
                                                     const T* weight, Best<T>& best) {
  using L = Simd<T>;
  Scores<Form, T> scores;
  tile<Form, T>(x.packed.get() + i * depth, y.packed.get() + j * depth, weight, depth, scores);
  const auto offset0 = L::load(y.offset.get() + j), offset1 = L::load(y.offset.get() + j + L::lanes);
#pragma GCC unroll 16
  for (int r = 0; r < Form::rows; ++r) {
    const int64_t row = i + r;
    const auto own = L::set1(x.offset[row]), bar = L::set1(best.value[row]);
    const auto score0 = scores[r][0] + (own + offset0), score1 = scores[r][1] + (own + offset1);
    auto low0 = bar, low1 = bar;  // what a score must beat: the lower of its row's best and its column's
    if constexpr (P != Part::kRows) {
      low0 = L::min(bar, L::load(best.value.get() + j));
      low1 = L::min(bar, L::load(best.value.get() + j + L::lanes));
    }
    if (__builtin_expect(L::template any_greater<P == Part::kDiagonal>(score0, low0, score1, low1), 0)) {
      take<P>(score0, y, x.id[row], row, j, best);
      take<P>(score1, y, x.id[row], row, j + L::lanes, best);
    }
  }
}

// Rows and columns of one task: a block of rows that stays in L2, columns enough to amortise it.
constexpr int64_t kMineRows = 96, kMineColumns = 2048;

template <class Form, class T>
void mine_negatives(const MiningSide<T>& x, const MiningSide<T>& y, bool symmetric, int64_t depth, const T* weight, int threads,
                    int64_t anchors, Best<T>& best) {
  constexpr int R = Form::rows, C = kColumns<T>;
  // A whole number of groups and of panels, so that no panel straddles the diagonal block's edge.
  const int64_t row_step = round_up(kMineRows, std::lcm(R, C)), row_tasks = (x.padded + row_step - 1) / row_step;
  const int64_t column_tasks = (y.padded + kMineColumns - 1) / kMineColumns, tasks = row_tasks * column_tasks;
  const int team = static_cast<int>(std::min<int64_t>(threads, tasks));
  const int64_t rows = std::max(x.padded, symmetric ? y.padded : 0);
  std::unique_ptr<std::unique_ptr<Best<T>>[]> bests(new std::unique_ptr<Best<T>>[team]);
  for (int t = 0; t < team; ++t) bests[t].reset(new Best<T>(rows));
#pragma omp parallel for schedule(monotonic : dynamic) num_threads(team) if (team > 1)
  for (int64_t task = 0; task < tasks; ++task) {
    Best<T>& mine = *bests[omp_get_thread_num()];
    const int64_t i0 = task / column_tasks * row_step, i1 = std::min(x.padded, i0 + row_step);
    const int64_t j0 = task % column_tasks * kMineColumns, j1 = std::min(y.padded, j0 + kMineColumns);
    for (int64_t j = j0; j < j1; j += C) {
      if (!symmetric) {
        for (int64_t i = i0; i < i1; i += R) mine_tile<Form, Part::kRows>(x, y, i, j, depth, weight, mine);
      } else if (j >= i1) {
        for (int64_t i = i0; i < i1; i += R) mine_tile<Form, Part::kAbove>(x, y, i, j, depth, weight, mine);
      } else {
        for (int64_t i = i0; i < std::min(i1, j + C); i += R) mine_tile<Form, Part::kDiagonal>(x, y, i, j, depth, weight, mine);
      }
    }
  }
  for (int t = 0; t < team; ++t)
    for (int64_t i = 0; i < anchors; ++i) best.merge(i, bests[t]->value[i], bests[t]->index[i]);
}

// What decides among positives and in the exact search: larger is farther, never NaN for comparable rows.
template <Metric M, class S>
inline Compute<S> exact_distance(const S* x, const S* y, int64_t depth) {
  return row_distance<M == Metric::kEuclidean ? Metric::kSqEuclidean : M, S>(x, y, depth);
}

// Members of a class whose pairs are visited once, by one thread; and how many such classes it takes at a time.
constexpr int64_t kSmallClass = 256, kClassChunk = 16;

template <Metric M, class S>
struct Miner {
  using T = Compute<S>;
  const HardestPairs& p;
  const S *x, *ref;
  const Classes& classes;  // of ref

  int64_t own(int64_t i) const { return p.self ? i : p.self_index != nullptr ? p.self_index[i] : -1; }
  int32_t class_of(int64_t i) const { return p.self ? classes.id[i] : classes.find(p.labels[i]); }
  T distance_to(int64_t i, int64_t j) const { return exact_distance<M, S>(x + i * p.depth, ref + j * p.depth, p.depth); }

  // Keeps the first of the farthest: candidates come in ascending order.
  void offer(int64_t i, int64_t j, T d, T& farthest) const {
    if (p.positive[i] < 0 ? d != d : !(d > farthest)) return;
    p.positive[i] = j;
    farthest = d;
  }

  void positive(int64_t i) const {
    const int32_t c = class_of(i);
    T farthest = 0;
    p.positive[i] = -1;
    for (int64_t m = c < 0 ? 0 : classes.start[c]; c >= 0 && m < classes.start[c + 1]; ++m) {
      const int64_t j = classes.member[m];
      if (j != own(i)) offer(i, j, distance_to(i, j), farthest);
    }
  }

  // The positives of a whole class among itself: every pair once.
  void positives_within(int64_t c) const {
    const int64_t *member = classes.member.get() + classes.start[c], count = classes.start[c + 1] - classes.start[c];
    T farthest[kSmallClass];
    for (int64_t m = 0; m < count; ++m) p.positive[member[m]] = -1;
    for (int64_t m = 0; m < count; ++m)
      for (int64_t n = m + 1; n < count; ++n) {
        const T d = distance_to(member[m], member[n]);
        offer(member[m], member[n], d, farthest[m]);
        offer(member[n], member[m], d, farthest[n]);
      }
  }

  bool small(int64_t c) const { return p.self && classes.start[c + 1] - classes.start[c] <= kSmallClass; }

  void positives() const {
    for_chunks(
        classes.count, p.threads,
        [&](int64_t, int64_t begin, int64_t end) {
          for (int64_t c = begin; c < end; ++c)
            if (small(c)) positives_within(c);
        },
        kClassChunk);
    for_chunks(p.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        if (const int32_t c = class_of(i); c < 0 || !small(c)) positive(i);
    });
  }

  // The nearest row of another class by exact differences: for anchors that the product form could not serve.
  int64_t search_negative(int64_t i) const {
    const int32_t c = class_of(i);
    if (c >= 0 && classes.count == 1) return -1;
    if (holds_nan(x + i * p.depth, p.depth)) return -1;
    int64_t best = -1;
    T nearest = 0;
    for (int64_t j = 0; j < p.ref_rows; ++j) {
      if (classes.id[j] == c) continue;
      const T d = distance_to(i, j);
      if (best < 0 ? d == d : d < nearest) {
        best = j;
        nearest = d;
      }
    }
    return best;
  }

  void negatives(const Best<T>& best) const {
    for_chunks(p.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) p.negative[i] = best.index[i] >= 0 ? best.index[i] : search_negative(i);
    });
  }
};

template <class Form, class S>
void mine(const HardestPairs& p, const S* ref, const Classes& classes, const Compute<S>* weight, Best<Compute<S>>& best) {
  using T = Compute<S>;
  const S* x = static_cast<const S*>(p.x);
  MiningSide<T> rows(p.rows, p.depth, Form::rows), columns(p.ref_rows, p.depth, kColumns<T>);
  Buffer<int32_t> anchor_class(p.rows);
  for (int64_t i = 0; i < p.rows; ++i) anchor_class[i] = p.self ? classes.id[i] : classes.find(p.labels[i]);
  fill_side<S>(p, x, p.rows, anchor_class.get(), Form::rows, rows);
  fill_side<S>(p, ref, p.ref_rows, classes.id.get(), kColumns<T>, columns);
  mine_negatives<Form, T>(rows, columns, p.self, p.depth, weight, p.threads, p.rows, best);
}

template <class S>
struct HardestPairsKernel {
  static void run(const HardestPairs& p) {
    using T = Compute<S>;
    if (p.ref_rows > std::numeric_limits<int32_t>::max()) throw std::invalid_argument("mining takes at most 2^31 - 1 rows");
    const S *x = static_cast<const S*>(p.x), *ref = p.self ? x : static_cast<const S*>(p.ref);
    const Classes classes(p.self ? p.labels : p.ref_labels, p.ref_rows);
    Best<T> best(p.rows);
    if (p.metric == Metric::kManhattan)
      mine<WeightedAbs, S>(p, ref, classes, Filled<T>(p.depth, T(-1)).get(), best);
    else
      mine<Product, S>(p, ref, classes, nullptr, best);
    for_metric(p.metric, [&](auto metric) {
      const Miner<decltype(metric)::value, S> miner = {p, x, ref, classes};
      miner.positives();
      miner.negatives(best);
    });
  }
};

void hardest_pairs(const HardestPairs& p) { by_dtype<HardestPairs, HardestPairsKernel>(p); }
