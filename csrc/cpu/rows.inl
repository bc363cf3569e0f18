// Work along one row: vectors run along k. Every reduction over k goes through `sum_over`, so the value of a row, or of a pair of rows, is
// the same bits whatever batch it stands in.

// Rows a thread takes at a time, and the fixed length of partial sums across rows: never a function of the thread count.
constexpr int64_t kRowChunk = 256;

// out[j] = sum_k term(j, k, n, sum) for J sums at a time: term adds the vector of elements k..k+n-1, lanes past n zero. Four accumulators a
// sum hide the latency of the addition; they are folded every kFoldVectors vectors, so that no running sum grows long. The order of
// additions does not depend on J.
constexpr int64_t kFoldVectors = 256;

template <int J, class T, class F>
inline __attribute__((always_inline)) void sums_over(int64_t depth, F&& term, T (&out)[J]) {
  using S = Simd<T>;
  constexpr int L = S::lanes;
  typename S::V total[J];
  for (int j = 0; j < J; ++j) total[j] = S::zero();
  for (int64_t k = 0; k < depth;) {
    const int64_t stop = std::min(depth, k + kFoldVectors * L);
    typename S::V sum[J][4];
    for (int j = 0; j < J; ++j)
      for (int i = 0; i < 4; ++i) sum[j][i] = S::zero();
    for (; k + 4 * L <= stop; k += 4 * L)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) sum[j][i] = term(j, k + i * L, L, sum[j][i]);
    for (; k + L <= stop; k += L)
      for (int j = 0; j < J; ++j) sum[j][0] = term(j, k, L, sum[j][0]);
    if (k < stop)
      for (int j = 0; j < J; ++j) sum[j][1] = term(j, k, static_cast<int>(stop - k), sum[j][1]);
    k = stop;
    for (int j = 0; j < J; ++j) total[j] += (sum[j][0] + sum[j][1]) + (sum[j][2] + sum[j][3]);
  }
  for (int j = 0; j < J; ++j) out[j] = S::sum(total[j]);
}

template <class T, class F>
inline T sum_over(int64_t depth, F&& term) {
  T out[1];
  sums_over<1>(depth, [&](int, int64_t k, int n, typename Simd<T>::V sum) { return term(k, n, sum); }, out);
  return out[0];
}

// Loads lanes k..k+n-1 of a row; n is a compile-time L on the main path once inlined.
template <class T, class S>
inline typename Simd<T>::V load_lanes(const S* row, int64_t k, int n) {
  return n == Simd<T>::lanes ? Simd<T>::load(row + k) : Simd<T>::load(row + k, n);
}

template <class T, class S>
inline void store_lanes(S* row, int64_t k, int n, typename Simd<T>::V v) {
  n == Simd<T>::lanes ? Simd<T>::store(row + k, v) : Simd<T>::store(row + k, v, n);
}

// Whether arrays of `rows` rows are worth writing past the caches: a store then needs no read of its line, but nothing that was written is
// left in a cache for its reader. Streamed rows are aligned.
constexpr int64_t kStreamBytes = 1 << 25;

template <class... Pointers>
inline bool streams(int64_t rows, int64_t row_bytes, Pointers... arrays) {
  const std::uintptr_t bits = (reinterpret_cast<std::uintptr_t>(arrays) | ...) | static_cast<std::uintptr_t>(row_bytes);
  return bits % 64 == 0 && rows * row_bytes * static_cast<int64_t>(sizeof...(arrays)) >= kStreamBytes;
}

template <bool kStream, class T, class S>
inline void write_lanes(S* row, int64_t k, int n, typename Simd<T>::V v) {
  if constexpr (kStream) {
    if (n == Simd<T>::lanes) return Simd<T>::stream(row + k, v);
  }
  store_lanes<T>(row, k, n, v);
}

// Runs f(k, n) over the lanes of a row.
template <class T, class F>
inline void for_lanes(int64_t depth, F&& f) {
  constexpr int L = Simd<T>::lanes;
  int64_t k = 0;
  for (; k + L <= depth; k += L) f(k, L);
  if (k < depth) f(k, static_cast<int>(depth - k));
}

// Runs f(chunk, begin, end) over fixed chunks of rows on `threads` threads.
template <class F>
inline void for_chunks(int64_t rows, int threads, F&& f, int64_t length = kRowChunk) {
  const int64_t chunks = (rows + length - 1) / length;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (chunks > 1 && threads > 1)
  for (int64_t c = 0; c < chunks; ++c) f(c, c * length, std::min(rows, (c + 1) * length));
}

inline int64_t chunk_count(int64_t rows) { return (rows + kRowChunk - 1) / kRowChunk; }

inline bool is_nan(float x) { return x != x; }
inline bool is_nan(double x) { return x != x; }
inline bool is_nan(Half x) { return (x.bits & 0x7fff) > 0x7c00; }
inline bool is_nan(BFloat x) { return (x.bits & 0x7fff) > 0x7f80; }

template <class S>
inline bool holds_nan(const S* row, int64_t depth) {
  bool nan = false;
  for (int64_t k = 0; k < depth; ++k) nan |= is_nan(row[k]);
  return nan;
}
