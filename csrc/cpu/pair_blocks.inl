// All pairs of rows block by block: what every dense loss (softmax, sums over pairs, all triplets) is a formula on top of.
//
// Columns, and in a batch against itself rows too, stand in the order of their classes. The positives of a row are then one segment of the
// columns, its own column left out, and a formula is only ever given segments that are all positive or all negative: no masks. Where a
// relation of every pair is given instead of classes (a matrix, or sets of labels that may meet), the order is the caller's and segments
// are its runs. Rows and columns of an ignored label have no place: they are never computed.
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
        euclidean(p.metric == Metric::kEuclidean || p.metric == Metric::kSqEuclidean),
        begin(p.rows),
        end(p.rows),
        own(p.rows),
        x_(static_cast<const T*>(p.x)),
        y_(static_cast<const T*>(p.self ? p.x : p.ref)),
        all_columns_(p.self ? p.rows : p.ref_rows),
        row_(p.rows),
        column_(all_columns_),
        kinds_(p.relation == Relation::kClasses ? 0 : 2 * p.rows),
        before_(p.relation == Relation::kClasses ? 0 : p.rows * (all_columns_ / kSide + 2)),
        row_norm_(round_up(p.rows, kSide)),
        column_norm_(round_up(all_columns_, kSide)),
        groups_(kSide * p.depth),
        panels_(round_up(all_columns_, C) * p.depth),
        block_(kSide * kPitch) {
    std::memset(block_.get(), 0, static_cast<std::size_t>(kSide * kPitch) * sizeof(T));
    p.relation == Relation::kClasses ? place_classes() : place_related();
    pack_columns();
  }

  // Where row i (in this order) lies in the caller's arrays.
  int64_t row(int64_t i) const { return row_[i]; }
  int64_t column(int64_t j) const { return column_[j]; }
  bool classified() const { return pairs.relation == Relation::kClasses; }
  int64_t positives(int64_t i) const { return classified() ? positives_before(i, columns) : kinds_[2 * i]; }
  int64_t negatives(int64_t i) const { return classified() ? columns - (end[i] - begin[i]) : kinds_[2 * i + 1]; }
  // Of the columns before j, which is the first of a block where the relation is given.
  int64_t positives_before(int64_t i, int64_t j) const {
    if (!classified()) return before_[i * stride() + (j + kSide - 1) / kSide];
    const int64_t stop = std::max(begin[i], std::min(end[i], j));
    return stop - begin[i] - (own[i] >= begin[i] && own[i] < stop);
  }
  const T* x(int64_t i) const { return x_ + row(i) * pairs.depth; }
  const T* y(int64_t j) const { return y_ + column(j) * pairs.depth; }

  // f(rows, columns) for every block, or for those that hold a positive; its scores are then at `at`.
  template <class F>
  void for_blocks(bool only_positives, F&& f) {
    for (int64_t i = 0; i < rows; i += kSide) for_strip(strip(i), pairs.self ? i : 0, only_positives, f);
  }

  Range strip(int64_t i) const { return {i, std::min(rows, i + kSide)}; }

  // The same for the blocks of some rows with the columns from `first` on.
  template <class F>
  void for_strip(Range strip, int64_t first, bool only_positives, F&& f) {
    bool packed = false;
    for (int64_t j = first; j < columns; j += kSide) {
      const Range range = {j, std::min(columns, j + kSide)};
      if (only_positives && !meet(strip, range)) continue;
      if (!packed) pack_rows(strip);
      packed = true;
      fill(strip, range);
      f(strip, range);
    }
  }

  T* at(Range rows, Range range, int64_t i, int64_t j) const { return block_.get() + offset(rows, range, i, j); }
  static int64_t offset(Range rows, Range range, int64_t i, int64_t j) { return (i - rows.begin) * kPitch + (j - range.begin); }

  // f(begin, end, positive) over the segments of row i within a range of columns, its own column left out.
  template <class F>
  void for_segments(int64_t i, Range range, F&& f) const {
    if (!classified()) return for_runs(i, range, f);
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
  int64_t rows = 0, columns = 0;  // those not ignored
  const bool euclidean;
  Buffer<int64_t> begin, end, own;  // positives of each row, and its own column or -1

 private:
  bool ignored(int64_t label) const { return pairs.ignores && label == pairs.ignore_label; }

  void place_classes() {
    const Classes classes(pairs.self ? pairs.labels : pairs.ref_labels, all_columns_);
    Buffer<int64_t> first(classes.count), place(all_columns_);
    for (int64_t c = 0; c < classes.count; ++c) {
      first[c] = columns;
      for (int64_t m = classes.start[c]; m < classes.start[c + 1]; ++m) {
        place[classes.member[m]] = ignored(classes.label[c]) ? -1 : columns;
        if (!ignored(classes.label[c])) column_[columns++] = classes.member[m];
      }
    }
    for (int64_t i = 0; i < (pairs.self ? columns : pairs.rows); ++i) {
      const int64_t from = pairs.self ? column_[i] : i;
      if (ignored(pairs.labels[from])) continue;
      const int32_t c = pairs.self ? classes.id[from] : classes.find(pairs.labels[from]);
      row_[rows] = from;
      begin[rows] = c < 0 ? 0 : first[c];
      end[rows] = c < 0 ? 0 : first[c] + classes.start[c + 1] - classes.start[c];
      const int64_t self = own_of(from);
      own[rows++] = pairs.self ? i : self < 0 ? -1 : place[self];
    }
  }

  // In the caller's order; what a row is related to is counted block by block.
  void place_related() {
    rows = pairs.rows;
    columns = all_columns_;
    std::iota(row_.get(), row_.get() + rows, int64_t(0));
    std::iota(column_.get(), column_.get() + columns, int64_t(0));
    for_chunks(rows, pairs.threads, [&](int64_t, int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        begin[i] = end[i] = 0;
        own[i] = own_of(i);
        int64_t counts[2] = {0, 0}, *before = before_.get() + i * stride();
        for (int64_t j = 0; j < columns; ++j) {
          if (j % kSide == 0) before[j / kSide] = counts[0];
          const int kind = related(i, j);
          if (kind >= 0) ++counts[kind == 0];
        }
        before[(columns + kSide - 1) / kSide] = counts[0];
        std::copy(counts, counts + 2, kinds_.get() + 2 * i);
      }
    });
  }

  int64_t stride() const { return all_columns_ / kSide + 2; }

  int64_t own_of(int64_t i) const { return pairs.self_index != nullptr && pairs.self_index[i] < all_columns_ ? pairs.self_index[i] : -1; }

  // 1 for a positive, 0 for a negative, -1 for neither.
  int related(int64_t i, int64_t j) const {
    if (j == own[i]) return -1;
    if (pairs.relation == Relation::kMatrix) {
      const auto kind = reinterpret_cast<const signed char*>(pairs.labels)[i * columns + j];
      return kind > 0 ? 1 : kind;
    }
    for (int64_t w = 0; w < pairs.words; ++w)
      if ((pairs.labels[i * pairs.words + w] & pairs.ref_labels[j * pairs.words + w]) != 0) return 1;
    return 0;
  }

  template <class F>
  void for_runs(int64_t i, Range range, F&& f) const {
    for (int64_t j = range.begin; j < range.end;) {
      const int64_t from = j;
      const int kind = related(i, j);
      while (++j < range.end && related(i, j) == kind) {
      }
      if (kind >= 0) f(from, j, kind == 1);
    }
  }

  void pack_columns() {
    const int64_t depth = pairs.depth;
    for_chunks(
        columns, pairs.threads,
        [&](int64_t, int64_t first, int64_t last) {
          pack<T>(y_, column_.get(), first, last, depth, C, panels_.get() + first * depth);
          if (euclidean)
            for (int64_t j = first; j < last; ++j) column_norm_[j] = squared_norm(y(j), depth);
        },
        kSide);
    if (!euclidean) return;
    for_chunks(rows, pairs.threads, [&](int64_t, int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) row_norm_[i] = squared_norm(x(i), depth);
    });
    std::fill(row_norm_.get() + rows, row_norm_.get() + round_up(rows, kSide), T(0));
    std::fill(column_norm_.get() + columns, column_norm_.get() + round_up(columns, kSide), T(0));
  }

  void pack_rows(Range strip) {
    for_chunks(
        strip.end - strip.begin, pairs.threads,
        [&](int64_t, int64_t first, int64_t last) {
          pack<T>(x_, row_.get(), strip.begin + first, strip.begin + last, pairs.depth, R, groups_.get() + first * pairs.depth);
        },
        8 * R);
  }

  bool meet(Range strip, Range range) const {
    for (int64_t i = strip.begin; i < strip.end; ++i)
      if (positives_before(i, range.end) > positives_before(i, range.begin)) return true;
    return false;
  }

  void fill(Range strip, Range range) {
    const int64_t depth = pairs.depth;
    for_chunks(
        range.end - range.begin, pairs.threads,
        [&](int64_t, int64_t first, int64_t) {
          const int64_t j = range.begin + first;
          for (int64_t i = strip.begin; i < strip.end; i += R) {
            Scores<Product, T> sums;
            tile<Product, T>(groups_.get() + (i - strip.begin) * depth, panels_.get() + j * depth, nullptr, depth, sums);
            T* to = at(strip, range, i, j);
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
      const bool real = i < rows && j + lane < columns;
      lanes[lane] = real ? row_distance<Metric::kSqEuclidean>(x(i), y(j + lane), pairs.depth) : T(0);
    }
    return L::load(lanes);
  }

  const T *x_, *y_;
  const int64_t all_columns_;
  Buffer<int64_t> row_, column_;    // where rows and columns lie in the caller's arrays
  Buffer<int64_t> kinds_, before_;  // of a given relation: positives and negatives of each row, positives before each of its blocks
  Buffer<T> row_norm_, column_norm_, groups_, panels_, block_;
};
