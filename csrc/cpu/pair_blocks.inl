// All pairs of rows block by block: what every dense loss (softmax, sums over pairs, all triplets) is a formula on top of.
//
// Columns, and in a batch against itself rows too, stand in the order of their classes. The positives of a row are then one segment of the
// columns, its own column left out, and a formula is only ever given segments that are all positive or all negative: no masks.
//
// A block of kSide x kSide scores is computed by tiles of the product form and stays in L2 while the formula reads it, row by row, and in
// a batch against itself column by column too: only blocks on and above the diagonal are computed. A gradient pass computes the blocks
// again, overwrites scores with coefficients and multiplies these with the rows. Every phase has one writer for each row or column and
// blocks come one after the other, so that the order of additions is the same at any thread count. Memory: four arrays of [rows, depth].
//
// Scores are larger-is-better: the product for dot and cosine (rows of length one), -d^2, or -d. Where the product form of d^2 has lost
// digits to cancellation (kNear), the pair is computed again by exact differences: identical rows are at distance 0.

template <class T>
constexpr T kNear = T(1) / T(128);

// Lanes n and above replaced.
template <class T>
inline typename Simd<T>::V first_lanes(typename Simd<T>::V v, int n, T fill) {
  using L = Simd<T>;
  if (n >= L::lanes) return v;
  alignas(64) T lanes[L::lanes];
  L::store(lanes, v);
  for (int i = n; i < L::lanes; ++i) lanes[i] = fill;
  return L::load(lanes);
}

// f(vector, n) over n elements at a time of s; the last may be partial.
template <class T, class F>
inline void for_vectors(const T* s, int64_t count, F&& f) {
  for_lanes<T>(count, [&](int64_t k, int n) { f(load_lanes<T>(s, k, n), n); });
}

template <class T>
class PairBlocks {
  using L = Simd<T>;
  using V = typename L::V;
  static constexpr int R = Product::rows, C = kColumns<T>;

 public:
  // A whole number of groups and of panels; the pitch keeps rows off the same cache sets, and rows or columns past the end readable.
  static constexpr int64_t kSide = (256 + std::lcm(R, C) - 1) / std::lcm(R, C) * std::lcm(R, C), kPitch = kSide + 32;

  explicit PairBlocks(const Pairs& p)
      : pairs(p),
        columns(p.self ? p.rows : p.ref_rows),
        classes(p.self ? p.labels : p.ref_labels, columns),
        euclidean(p.metric == Metric::kEuclidean || p.metric == Metric::kSqEuclidean),
        begin(p.rows),
        end(p.rows),
        own(p.rows),
        x_(static_cast<const T*>(p.x)),
        y_(static_cast<const T*>(p.self ? p.x : p.ref)),
        row_norm_(round_up(p.rows, kSide)),
        column_norm_(round_up(columns, kSide)),
        groups_(kSide * p.depth),
        panels_(round_up(columns, C) * p.depth),
        block_(kSide * kPitch) {
    std::memset(block_.get(), 0, static_cast<std::size_t>(kSide * kPitch) * sizeof(T));
    place_rows();
    pack_columns();
  }

  // Where row i (in this order) lies in the caller's arrays.
  int64_t row(int64_t i) const { return pairs.self ? classes.member[i] : i; }
  int64_t column(int64_t j) const { return classes.member[j]; }
  int64_t positives(int64_t i) const { return end[i] - begin[i] - (own[i] >= begin[i] && own[i] < end[i]); }
  int64_t negatives(int64_t i) const { return columns - (end[i] - begin[i]); }
  const T* x(int64_t i) const { return x_ + row(i) * pairs.depth; }
  const T* y(int64_t j) const { return y_ + column(j) * pairs.depth; }

  // f(rows, columns) for every block, or for those that hold a positive; its scores are then at `at`.
  template <class F>
  void for_blocks(bool only_positives, F&& f) {
    for (int64_t i = 0; i < pairs.rows; i += kSide) for_strip(strip(i), pairs.self ? i : 0, only_positives, f);
  }

  Range strip(int64_t i) const { return {i, std::min(pairs.rows, i + kSide)}; }

  // The same for the blocks of some rows with the columns from `first` on.
  template <class F>
  void for_strip(Range rows, int64_t first, bool only_positives, F&& f) {
    bool packed = false;
    for (int64_t j = first; j < columns; j += kSide) {
      const Range range = {j, std::min(columns, j + kSide)};
      if (only_positives && !meet(rows, range)) continue;
      if (!packed) pack_rows(rows);
      packed = true;
      fill(rows, range);
      f(rows, range);
    }
  }

  T* at(Range rows, Range range, int64_t i, int64_t j) const { return block_.get() + offset(rows, range, i, j); }
  static int64_t offset(Range rows, Range range, int64_t i, int64_t j) { return (i - rows.begin) * kPitch + (j - range.begin); }

  // f(begin, end, positive) over the segments of row i within a range of columns, its own column left out.
  template <class F>
  void for_segments(int64_t i, Range range, F&& f) const {
    const auto clamp = [&](int64_t j) { return std::max(range.begin, std::min(range.end, j)); };
    const int64_t b = clamp(begin[i]), e = clamp(end[i]);
    const auto part = [&](int64_t first, int64_t last, bool positive) {
      if (first < last) f(first, last, positive);
    };
    part(range.begin, b, false);
    const bool inside = own[i] >= b && own[i] < e;
    part(b, inside ? own[i] : e, true);
    if (inside) part(own[i] + 1, e, true);
    part(e, range.end, false);
  }

  // The class that a block above the diagonal shares with its rows, if any: rows first.. are positives of columns ..last - 1.
  void shared_class(Range rows, Range range, int64_t& first, int64_t& last) const {
    const bool shared = begin[range.begin] < rows.end;
    first = shared ? std::max(rows.begin, begin[range.begin]) : rows.end;
    last = shared ? std::min(range.end, end[range.begin]) : range.begin;
  }

  const Pairs& pairs;
  const int64_t columns;
  const Classes classes;  // of the columns
  const bool euclidean;
  Buffer<int64_t> begin, end, own;  // positives of each row, and its own column or -1

 private:
  void place_rows() {
    Buffer<int64_t> place(pairs.self_index != nullptr ? columns : 0);
    if (pairs.self_index != nullptr)
      for (int64_t j = 0; j < columns; ++j) place[classes.member[j]] = j;
    for (int64_t i = 0; i < pairs.rows; ++i) {
      const int32_t c = pairs.self ? classes.id[row(i)] : classes.find(pairs.labels[i]);
      begin[i] = c < 0 ? 0 : classes.start[c];
      end[i] = c < 0 ? 0 : classes.start[c + 1];
      own[i] = pairs.self ? i : -1;
      if (pairs.self_index != nullptr && pairs.self_index[i] >= 0 && pairs.self_index[i] < columns) own[i] = place[pairs.self_index[i]];
    }
  }

  void pack_columns() {
    const int64_t depth = pairs.depth;
    for_chunks(
        columns, pairs.threads,
        [&](int64_t, int64_t first, int64_t last) {
          pack<T>(y_, classes.member.get(), first, last, depth, C, panels_.get() + first * depth);
          if (euclidean)
            for (int64_t j = first; j < last; ++j) column_norm_[j] = squared_norm(y(j), depth);
        },
        kSide);
    if (!euclidean) return;
    for_chunks(pairs.rows, pairs.threads, [&](int64_t, int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) row_norm_[i] = squared_norm(x(i), depth);
    });
    std::fill(row_norm_.get() + pairs.rows, row_norm_.get() + round_up(pairs.rows, kSide), T(0));
    std::fill(column_norm_.get() + columns, column_norm_.get() + round_up(columns, kSide), T(0));
  }

  void pack_rows(Range rows) {
    const int64_t* order = pairs.self ? classes.member.get() : nullptr;
    for_chunks(
        rows.end - rows.begin, pairs.threads,
        [&](int64_t, int64_t first, int64_t last) {
          pack<T>(x_, order, rows.begin + first, rows.begin + last, pairs.depth, R, groups_.get() + first * pairs.depth);
        },
        8 * R);
  }

  bool meet(Range rows, Range range) const {
    for (int64_t i = rows.begin; i < rows.end; ++i)
      if (begin[i] < range.end && end[i] > range.begin && positives(i) > 0) return true;
    return false;
  }

  void fill(Range rows, Range range) {
    const int64_t depth = pairs.depth;
    for_chunks(
        range.end - range.begin, pairs.threads,
        [&](int64_t, int64_t first, int64_t) {
          const int64_t j = range.begin + first;
          for (int64_t i = rows.begin; i < rows.end; i += R) {
            Scores<Product, T> sums;
            tile<Product, T>(groups_.get() + (i - rows.begin) * depth, panels_.get() + j * depth, nullptr, depth, sums);
            T* to = at(rows, range, i, j);
            for (int r = 0; r < R; ++r)
              for (int v = 0; v < 2; ++v) L::store(to + r * kPitch + v * L::lanes, score(sums[r][v], i + r, j + v * L::lanes));
          }
        },
        C);
  }

  V score(V product, int64_t i, int64_t j) const {
    if (!euclidean) return product;
    const V norms = L::set1(row_norm_[i]) + L::load(column_norm_.get() + j);
    V square = L::fma(product, L::set1(T(-2)), norms);
    const unsigned all = (1u << L::lanes) - 1u, near = ~L::greater(square, norms * L::set1(kNear<T>)) & all;
    if (__builtin_expect(near != 0, 0)) square = exactly(square, near, i, j);
    return -(pairs.metric == Metric::kEuclidean ? L::sqrt(square) : square);
  }

  __attribute__((noinline)) V exactly(V square, unsigned near, int64_t i, int64_t j) const {
    alignas(64) T lanes[L::lanes];
    L::store(lanes, square);
    for (; near != 0; near &= near - 1) {
      const int lane = __builtin_ctz(near);
      const bool real = i < pairs.rows && j + lane < columns;
      lanes[lane] = real ? row_distance<Metric::kSqEuclidean>(x(i), y(j + lane), pairs.depth) : T(0);
    }
    return L::load(lanes);
  }

  const T *x_, *y_;
  Buffer<T> row_norm_, column_norm_, groups_, panels_, block_;
};

// Rows as the right-hand side of a product with coefficients, and the sums of these products: panels of kColumns elements of depth.
template <class T>
class WeightedRows {
  using L = Simd<T>;
  static constexpr int R = Product::rows, C = kColumns<T>;

 public:
  WeightedRows(int64_t rows, int64_t depth) : rows_(rows), panels((depth + C - 1) / C), values(panels * rows * C) {}

  template <class Row>
  void set(int64_t depth, int threads, Row&& row) {
    for_chunks(rows_, threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t p = 0; p < panels; ++p)
          for (int v = 0; v < 2; ++v) {
            const int64_t k = p * C + v * L::lanes, left = depth - k;
            const auto value = left <= 0 ? L::zero() : load_lanes<T>(row(i), k, static_cast<int>(std::min<int64_t>(left, L::lanes)));
            L::store(at(p, i) + v * L::lanes, value);
          }
    });
  }
  void clear() { std::memset(values.get(), 0, static_cast<std::size_t>(panels * rows_ * C) * sizeof(T)); }
  T* at(int64_t panel, int64_t row) const { return values.get() + (panel * rows_ + row) * C; }

 private:
  int64_t rows_;

 public:
  const int64_t panels;
  Buffer<T> values;
};

// sum over k of c[r * kRow + k * kStep] * b[k]: coefficients are broadcast from where the block holds them, by rows or by columns.
template <class T, int64_t kRow, int64_t kStep>
__attribute__((noinline)) void weighted_tile(const T* c, const T* b, int64_t count, Scores<Product, T>& out) {
  using L = Simd<T>;
  constexpr int R = Product::rows;
  Scores<Product, T> sum;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = L::zero();
  for (int64_t k = 0; k < count; ++k, c += kStep, b += kColumns<T>) {
    const auto b0 = L::pin(L::load(b)), b1 = L::pin(L::load(b + L::lanes));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto element = L::set1(c[r * kRow]);
      sum[r][0] = L::fma(element, b0, sum[r][0]);
      sum[r][1] = L::fma(element, b1, sum[r][1]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    out[r][0] = sum[r][0];
    out[r][1] = sum[r][1];
  }
}

// sums[to + r] += sum over k of coefficient(r, k) values[from + k], r < to_count, k < from_count.
template <class T, int64_t kRow, int64_t kStep>
inline void add_products(const T* c, const WeightedRows<T>& values, Range from, const WeightedRows<T>& sums, Range to, int threads) {
  using L = Simd<T>;
  constexpr int R = Product::rows;
  for_chunks(
      to.end - to.begin, threads,
      [&](int64_t, int64_t first, int64_t last) {
        for (int64_t p = 0; p < values.panels; ++p) {
          Scores<Product, T> found;
          weighted_tile<T, kRow, kStep>(c + first * kRow, values.at(p, from.begin), from.end - from.begin, found);
          for (int64_t r = 0; r < last - first; ++r)
            for (int v = 0; v < 2; ++v) {
              T* total = sums.at(p, to.begin + first + r) + v * L::lanes;
              L::store(total, L::load(total) + found[r][v]);
            }
        }
      },
      R);
}
