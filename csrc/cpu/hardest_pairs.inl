// Batch-hard mining: per row the farthest row of its class and the nearest row of another class.
//
// Negatives: tiles of the product form (tile.inl: 12 rows x 32 columns on AVX-512), score = x.y - (|x|^2 + |y|^2) / 2 = -d^2 / 2 (dot and
// cosine: the product; manhattan: -sum |x - y|). Mining a batch against itself visits the upper triangle only: the score of (i, j) serves
// row i and row j. What is kept is O(N): of each row the best value and its index, lane by lane while a task runs.
// Instructions an element: one fma. A vector of scores then costs nine more, without a branch, whatever the data: two adds for the norms,
// one compare of the classes, compare and two blends for its row, the same for its columns; at D = 128 that is 7 % of the time. Order does
// not matter to the result: ties go to the lowest index, and threads are merged by (value, index).
//
// Positives: only K - 1 a row, found through lists of each class, by exact differences: tight classes are not mined from cancellation
// noise. Every pair of a small class is computed once; a large class passes by blocks of its anchors four members at a time.
//
// Scores of -inf (a norm overflows, a row holds an infinity) never win above; an anchor left without a negative is then searched exactly.
//
// Limit: the fma units, on half the pairs. Blocks of 96 rows waste 2 % at N = 4096 on the diagonal; packing and positives take 3 % each.

// One side of the product: rows packed for it, half squared norms subtracted from every score (NaN past the end: never a winner), classes.
template <class T>
struct MiningSide {
  MiningSide(int64_t rows, int64_t depth, int width) : padded(round_up(rows, width)), packed(padded * depth), offset(padded), id(padded) {}
  int64_t padded;
  Buffer<T> packed, offset;
  Buffer<typename Simd<T>::Int> id;
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

// How a tile stands to the triangle of pairs. Above the diagonal its scores serve rows and columns alike; candidates of a row then come in
// ascending order, so a strict compare keeps the lowest index. On the diagonal they come in any order and ties are told apart.
enum class Part { kRows, kAbove, kDiagonal };
template <Part P>
using PartConstant = std::integral_constant<Part, P>;

// Without branches: row_value and row_index hold the best of each row lane by lane, `columns` that of each column.
template <class Form, Part P, class T>
inline __attribute__((always_inline)) void mine_tile(const MiningSide<T>& x, const MiningSide<T>& y, int64_t i, int64_t j, int64_t depth,
                                                     const T* weight, T* row_value, typename Simd<T>::Int* row_index, Best<T>& columns) {
  using L = Simd<T>;
  using Int = typename L::Int;
  Scores<Form, T> scores;
  tile<Form, T>(x.packed.get() + i * depth, y.packed.get() + j * depth, weight, depth, scores);
  typename L::V offset[2], column_value[2];
  typename L::VI number[2], column_index[2];
  for (int v = 0; v < 2; ++v) {
    const int64_t first = j + v * L::lanes;
    offset[v] = L::load(y.offset.get() + first);
    number[v] = L::from(static_cast<Int>(first));
    if constexpr (P != Part::kRows) {
      column_value[v] = L::load(columns.value.get() + first);
      column_index[v] = L::load(columns.index.get() + first);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Form::rows; ++r) {
    const auto own = L::set1(x.offset[i + r]);
    const auto row = L::set1(static_cast<Int>(i + r));
    auto value = L::load(row_value + r * L::lanes);
    auto index = L::load(row_index + r * L::lanes);
    for (int v = 0; v < 2; ++v) {
      const auto score = scores[r][v] + (own + offset[v]);
      const auto other = L::differs(y.id.get() + j + v * L::lanes, x.id[i + r]);
      L::template keep_larger<P == Part::kDiagonal>(other, score, number[v], value, index);
      if constexpr (P != Part::kRows) L::template keep_larger<P == Part::kDiagonal>(other, score, row, column_value[v], column_index[v]);
    }
    L::store(row_value + r * L::lanes, value);
    L::store(row_index + r * L::lanes, index);
  }
  if constexpr (P != Part::kRows) {
    for (int v = 0; v < 2; ++v) {
      L::store(columns.value.get() + j + v * L::lanes, column_value[v]);
      L::store(columns.index.get() + j + v * L::lanes, column_index[v]);
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
  std::unique_ptr<std::unique_ptr<LaneBest<T>>[]> lanes(new std::unique_ptr<LaneBest<T>>[team]);
  for (int t = 0; t < team; ++t) {
    bests[t].reset(new Best<T>(rows));
    lanes[t].reset(new LaneBest<T>(row_step));
  }
#pragma omp parallel for schedule(monotonic : dynamic) num_threads(team) if (team > 1)
  for (int64_t task = 0; task < tasks; ++task) {
    Best<T>& mine = *bests[omp_get_thread_num()];
    LaneBest<T>& row_best = *lanes[omp_get_thread_num()];
    const int64_t i0 = task / column_tasks * row_step, i1 = std::min(x.padded, i0 + row_step);
    const int64_t j0 = task % column_tasks * kMineColumns, j1 = std::min(y.padded, j0 + kMineColumns);
    if (symmetric && j1 <= i0) continue;
    row_best.clear(i1 - i0);
    const auto visit = [&](auto part, int64_t i, int64_t j) {
      mine_tile<Form, decltype(part)::value>(x, y, i, j, depth, weight, row_best.value(i - i0), row_best.index(i - i0), mine);
    };
    for (int64_t j = symmetric ? std::max(j0, i0) : j0; j < j1; j += C) {
      if (!symmetric) {
        for (int64_t i = i0; i < i1; i += R) visit(PartConstant<Part::kRows>{}, i, j);
      } else if (j >= i1) {
        for (int64_t i = i0; i < i1; i += R) visit(PartConstant<Part::kAbove>{}, i, j);
      } else {
        for (int64_t i = i0; i < std::min(i1, j + C); i += R) visit(PartConstant<Part::kDiagonal>{}, i, j);
      }
    }
    for (int64_t i = i0; i < std::min(i1, anchors); ++i) row_best.fold(i - i0, [&](T value, auto index) { mine.merge(i, value, index); });
  }
  for (int t = 0; t < team; ++t)
    for (int64_t i = 0; i < anchors; ++i) best.merge(i, bests[t]->value[i], bests[t]->index[i]);
}

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
