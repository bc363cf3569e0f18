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
