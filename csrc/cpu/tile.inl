// All pairs on tiles: R rows of x against two vectors of columns (rows of y), accumulated over k in registers.
//
// Layout. Rows are packed in groups of R, columns in panels of kColumns, both k-major: element k of row r of a group is a[k * R + r]. The
// row element is broadcast, the columns are vectors, so one step over k costs two vector loads and R broadcasts for 2 R accumulators.
// R is set per instruction set so that accumulators, operands and temporaries fit the registers (24 accumulators of 32 on AVX-512, 12 of 16
// on AVX2). Rows and columns past the end are zero.
//
// Instructions an element: product 1 (fma), square difference 2 (sub, fma), weighted |difference| 3 (sub, and, fma), weighted maximum 2.
//
// Each (i, j) has its own accumulator and the same order over k whatever tile it falls in, so a score is the same bits in any batch. The
// accumulator is folded every kFold terms: one running fp32 sum over D = 8192 loses two digits.

constexpr int64_t kFold = 128;

template <class T>
constexpr int kColumns = 2 * Simd<T>::lanes;

struct Product {
  static constexpr int rows = kProductRows;
  static constexpr bool weighted = false;
  template <class L, class V>
  static V step(V sum, V a, V b, V) {
    return L::fma(a, b, sum);
  }
};

struct SquareDifference {
  static constexpr int rows = kDifferenceRows;
  static constexpr bool weighted = false;
  template <class L, class V>
  static V step(V sum, V a, V b, V) {
    const V difference = a - b;
    return L::fma(difference, difference, sum);
  }
};

struct WeightedAbs {
  static constexpr int rows = kDifferenceRows;
  static constexpr bool weighted = true;
  template <class L, class V>
  static V step(V sum, V a, V b, V w) {
    return L::fma(L::abs(a - b), w, sum);
  }
};

struct WeightedMax {
  static constexpr int rows = kDifferenceRows;
  static constexpr bool weighted = true;
  template <class L, class V>
  static V step(V sum, V a, V b, V w) {
    return L::fma(L::max(a, b), w, sum);
  }
};

// A tile of one row is as fast as its panel arrives: the lines of one step over k, this far ahead.
constexpr int64_t kPrefetchBytes = 4096;

template <class P>
inline void prefetch_panel(const P* panel, int64_t bytes) {
  const char* line = reinterpret_cast<const char*>(panel) + bytes;
  for (std::size_t i = 0; i < kColumns<Compute<P>> * sizeof(P); i += 64) __builtin_prefetch(line + i);
}

template <class T, int R>
using Block = typename Simd<T>::V[R][2];
template <class Form, class T>
using Scores = Block<T, Form::rows>;

template <class Form, class T, int R, class P>
inline __attribute__((always_inline)) void accumulate(const T* a, const P* b, const T* weight, int64_t depth, Block<T, R>& out) {
  using L = Simd<T>;
  Block<T, R> sum;  // a local that nothing can alias: the compiler keeps it in registers
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = L::zero();
  for (int64_t k = 0; k < depth; ++k) {
    if constexpr (R == 1) prefetch_panel(b, kPrefetchBytes);
    const auto b0 = L::pin(L::load(b)), b1 = L::pin(L::load(b + L::lanes));
    const auto w = Form::weighted ? L::set1(weight[k]) : L::zero();
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto element = L::set1(a[r]);
      sum[r][0] = Form::template step<L>(sum[r][0], element, b0, w);
      sum[r][1] = Form::template step<L>(sum[r][1], element, b1, w);
    }
    a += R;
    b += kColumns<T>;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    out[r][0] = sum[r][0];
    out[r][1] = sum[r][1];
  }
}

// The scores of one tile: group `a` of R rows against panel `b`, which may be of a storage type. One function for each form and type, never
// inlined: the call and the 2 R vectors through L1 cost about one percent at D = 128, a copy in every caller would triple the compile time.
template <class Form, class T, int R = Form::rows, class P = T>
__attribute__((noinline)) void tile(const T* a, const P* b, const T* weight, int64_t depth, Block<T, R>& total) {
  accumulate<Form, T, R>(a, b, weight, std::min(depth, kFold), total);
  for (int64_t k = kFold; k < depth; k += kFold) {
    Block<T, R> sum;
    accumulate<Form, T, R>(a + k * R, b + k * kColumns<T>, weight + (Form::weighted ? k : 0), std::min(depth - k, kFold), sum);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < 2; ++v) total[r][v] += sum[r][v];
  }
}

// Packs rows begin..end-1 of x (through `order` if given) in units of `width` rows, k-major, zero past the end: blocks of a vector's
// lanes squared, transposed in registers.
template <class T, class S, class P>
inline void pack(const S* x, const int64_t* order, int64_t begin, int64_t end, int64_t depth, int width, P* out) {
  using L = Simd<T>;
  for (int64_t unit = begin; unit < end; unit += width, out += depth * width) {
    for (int r = 0; r < width; r += L::lanes) {
      const int stored = std::min(width - r, L::lanes), filled = static_cast<int>(std::min<int64_t>(stored, end - unit - r));
      const S* row[L::lanes];
      for (int i = 0; i < filled; ++i) row[i] = x + (order != nullptr ? order[unit + r + i] : unit + r + i) * depth;
      for_lanes<T>(depth, [&](int64_t k, int n) {
        typename L::V block[L::lanes];
#pragma GCC unroll 16
        for (int i = 0; i < L::lanes; ++i) block[i] = i < filled ? load_lanes<T>(row[i], k, n) : L::zero();
        L::transpose(block);
#pragma GCC unroll 16
        for (int i = 0; i < L::lanes; ++i)
          if (i < n) store_lanes<T>(out + (k + i) * width, r, stored, block[i]);
      });
    }
  }
}

// Elements of a storage type in the type of arithmetic.
template <class T, class S>
inline void widen_row(const S* from, int64_t count, T* to) {
  for_lanes<T>(count, [&](int64_t k, int n) { store_lanes<T>(to, k, n, load_lanes<T>(from, k, n)); });
}

// Rows and columns that one task covers, and how tasks share a matrix of scores. Blocking follows size and threads; arithmetic never does.
struct Range {
  int64_t begin, end;
};

constexpr int64_t kGroupBytes = 512 * 1024;  // packed rows of a task: half an L2
constexpr int64_t kPanelBytes = 128 * 1024;  // packed columns in flight

struct Split {
  int64_t row_step, column_step, row_tasks, column_tasks;
  Range rows(int64_t task, int64_t count) const { return step(task / column_tasks, row_step, count); }
  Range columns(int64_t task, int64_t count) const { return step(task % column_tasks, column_step, count); }
  static Range step(int64_t i, int64_t length, int64_t count) { return {i * length, std::min(count, (i + 1) * length)}; }
};

template <class Form, class T>
inline Split split(int64_t rows, int64_t columns, int64_t depth, int threads, int64_t most_columns = std::numeric_limits<int64_t>::max()) {
  const int64_t row_bytes = depth * static_cast<int64_t>(sizeof(T));
  Split s;
  s.row_step = round_up(std::max<int64_t>(kGroupBytes / row_bytes, 96), Form::rows);
  s.row_step = std::min(s.row_step, round_up(std::max<int64_t>(rows, 1), Form::rows));
  s.row_tasks = std::max<int64_t>((rows + s.row_step - 1) / s.row_step, 1);
  const int64_t wanted = threads == 1 ? 1 : 4 * threads;
  const int64_t parts = std::max<int64_t>((wanted + s.row_tasks - 1) / s.row_tasks, 1);
  s.column_step = round_up(std::clamp<int64_t>((columns + parts - 1) / parts, 512, most_columns), kColumns<T>);
  s.column_tasks = std::max<int64_t>((columns + s.column_step - 1) / s.column_step, 1);
  if (s.row_tasks * s.column_tasks < wanted && rows > 96) {
    const int64_t pieces = (wanted + s.column_tasks - 1) / s.column_tasks;
    s.row_step = round_up(std::max<int64_t>((rows + pieces - 1) / pieces, 96), Form::rows);
    s.row_tasks = (rows + s.row_step - 1) / s.row_step;
  }
  return s;
}

// The packing scratch of one task.
template <class Form, class S>
struct TaskScratch {
  using T = Compute<S>;
  static int64_t panels_in_flight(int64_t depth) {
    return std::max<int64_t>(kPanelBytes / (depth * kColumns<T> * static_cast<int64_t>(sizeof(T))), 1);
  }
  TaskScratch(const Split& s, int64_t depth)
      : groups(round_up(s.row_step, Form::rows) * depth), panels(panels_in_flight(depth) * kColumns<T> * depth) {}
  Buffer<T> groups, panels;
};

// Runs f(task, scratch) for every task on `threads` threads, each with scratch of its own, made and prepared before they start.
template <class Scratch, class Prepare, class F>
inline void for_tasks(const Split& s, int64_t depth, int threads, Prepare&& prepare, F&& f) {
  const int64_t tasks = s.row_tasks * s.column_tasks;
  const int team = static_cast<int>(std::min<int64_t>(threads, tasks));
  std::unique_ptr<std::unique_ptr<Scratch>[]> scratch(new std::unique_ptr<Scratch>[team]);
  for (int t = 0; t < team; ++t) {
    scratch[t].reset(new Scratch(s, depth));
    prepare(*scratch[t]);
  }
#pragma omp parallel for schedule(monotonic : dynamic) num_threads(team) if (team > 1)
  for (int64_t task = 0; task < tasks; ++task) f(task, *scratch[omp_get_thread_num()]);
}

template <class Scratch, class F>
inline void for_tasks(const Split& s, int64_t depth, int threads, F&& f) {
  for_tasks<Scratch>(s, depth, threads, [](Scratch&) {}, f);
}

// Equal weights, by which the manhattan distance is a Koch sum.
template <class T>
class Filled : public Buffer<T> {
 public:
  Filled(int64_t count, T value) : Buffer<T>(count) { std::fill(this->get(), this->get() + count, value); }
};

template <class S>
struct Operands {
  using T = Compute<S>;
  const S *x, *y;
  int64_t depth;
  const T* weight;
  const int64_t* order;  // of the columns, or null
  const S* packed;       // panels of all columns, or null: packed on the way
};

// A task of so few rows reads packed panels once, as they are: a tile of one row is then faster than one that is nearly empty.
constexpr int64_t kFewRows = 2;

// Every tile of rows x columns: visit(first row, first column, scores), where scores is a Block of some rows. For one row, columns come in
// ascending order. enter(begin, end) is called before the first tile of each block of columns in flight.
template <class Form, class S, class Enter, class Visit>
inline void for_tiles(const Operands<S>& o, Range rows, Range columns, TaskScratch<Form, S>& scratch, Enter&& enter, Visit&& visit) {
  using T = Compute<S>;
  constexpr int C = kColumns<T>;
  const int64_t in_flight = TaskScratch<Form, S>::panels_in_flight(o.depth) * C;
  const bool few = o.packed != nullptr && rows.end - rows.begin <= kFewRows;
  if (few)
    widen_row(o.x + rows.begin * o.depth, (rows.end - rows.begin) * o.depth, scratch.groups.get());
  else
    pack<T>(o.x, nullptr, rows.begin, rows.end, o.depth, Form::rows, scratch.groups.get());
  const auto block = [&](auto row_count, const auto* panels, int64_t begin, int64_t end) {
    constexpr int R = decltype(row_count)::value;
    for (int64_t i = rows.begin; i < rows.end; i += R) {
      const T* group = scratch.groups.get() + (i - rows.begin) * o.depth;
      for (int64_t j = begin; j < end; j += C) {
        Block<T, R> scores;
        tile<Form, T, R>(group, panels + (j - begin) * o.depth, o.weight, o.depth, scores);
        visit(i, j, scores);
      }
    }
  };
  for (int64_t c = columns.begin; c < columns.end; c += in_flight) {
    const int64_t stop = std::min(columns.end, c + in_flight);
    const S* packed = o.packed != nullptr ? o.packed + c * o.depth : nullptr;
    enter(c, stop);
    if (few) {
      block(std::integral_constant<int, 1>{}, packed, c, stop);
      continue;
    }
    const T* panels = scratch.panels.get();
    if (packed == nullptr)
      pack<T>(o.y, o.order, c, stop, o.depth, C, scratch.panels.get());
    else if constexpr (std::is_same_v<S, T>)
      panels = packed;
    else
      widen_row(packed, round_up(stop - c, C) * o.depth, scratch.panels.get());
    block(std::integral_constant<int, Form::rows>{}, panels, c, stop);
  }
}

template <class S>
inline Compute<S> squared_norm(const S* row, int64_t depth) {
  using T = Compute<S>;
  return sum_over<T>(depth, [&](int64_t k, int n, auto sum) {
    const auto v = load_lanes<T>(row, k, n);
    return Simd<T>::fma(v, v, sum);
  });
}

// What the product form adds to x.y for a row, so that scores order pairs by distance: -|row|^2 / 2, nothing for dot and cosine.
template <class S>
inline Compute<S> product_offset(Metric metric, const S* row, int64_t depth) {
  using T = Compute<S>;
  const bool euclidean = metric == Metric::kEuclidean || metric == Metric::kSqEuclidean;
  return euclidean ? squared_norm(row, depth) / T(-2) : T(0);
}
