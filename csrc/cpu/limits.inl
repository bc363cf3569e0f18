// What this instruction set can do at most, by loops that do nothing else: the limits that siamese_fast/benchmarking/limits.py measures.
//
//     kFma    fma                      an element of a product (2 flops)
//     kAbs    sub, and, fma            an element of the exact Koch sum
//     kMax    max, fma                 an element of the Koch sum by maxima
//     kSign   sub, sign, fma, fma      an element of the gradients of all pairs
//
// A step loads one vector from L1 against rows that stay in registers, an accumulator each: more chains than an fma has cycles of latency,
// and fewer loads than a kernel, which broadcasts its rows from memory. Reads and copies run in `streams` streams, since a prefetcher
// follows each of them on its own; a copy writes through the caches or past them.

constexpr int64_t kProbeVectors = 64;  // 4 KiB at most

template <Mix mix>
constexpr int kProbeRows = mix == Mix::kFma    ? (Simd<float>::lanes == 16 ? 24 : 12)
                           : mix == Mix::kSign ? (Simd<float>::lanes == 16 ? 8 : 3)
                                               : (Simd<float>::lanes == 16 ? 12 : 6);

template <Mix mix, class V>
inline void probe_step(V row, V column, V weight, V& sum, V& other) {
  using L = Simd<float>;
  if constexpr (mix == Mix::kFma) {
    sum = L::fma(column, weight, sum);
  } else if constexpr (mix == Mix::kAbs) {
    sum = L::fma(L::abs(row - column), weight, sum);
  } else if constexpr (mix == Mix::kMax) {
    sum = L::fma(L::max(row, column), weight, sum);
  } else {
    const V slope = L::sign(row - column);
    sum = L::fma(weight, slope, sum);
    other = L::fma(weight, slope, other);
  }
}

// kProbeRows vectors a step; the sums go to `sink` so that no step can be left out.
template <Mix mix>
void probe_mix(int64_t steps, float* sink) {
  using L = Simd<float>;
  using V = L::V;
  constexpr int R = kProbeRows<mix>, C = mix == Mix::kSign ? (L::lanes == 16 ? 4 : 3) : 1;
  alignas(64) float line[kProbeVectors * L::lanes];
  for (int64_t i = 0; i < kProbeVectors * L::lanes; ++i) line[i] = static_cast<float>(i % 7) - 3;
  V rows[R], sums[R], others[C];
  for (int r = 0; r < R; ++r) {
    rows[r] = L::pin(L::set1(static_cast<float>(r) - 2.25f));
    sums[r] = L::pin(L::set1(static_cast<float>(r)));  // chains that differ, lest the compiler see one
  }
  for (int c = 0; c < C; ++c) others[c] = L::pin(L::set1(static_cast<float>(c)));
  const V weight = L::pin(L::set1(0.5f));
  for (int64_t step = 0; step < steps; ++step) {
    const V column = L::pin(L::load(line + step % kProbeVectors * L::lanes));
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) probe_step<mix>(rows[r], column, weight, sums[r], others[r % C]);
  }
  V total = L::zero();
  for (int r = 0; r < R; ++r) total += sums[r];
  for (int c = 0; c < C; ++c) total += others[c];
  L::store(sink, total);
}

constexpr int64_t kStreamStep = 4;  // vectors a stream moves in a step

inline void read_range(const float* x, int64_t count, int64_t streams, float* sink) {
  using L = Simd<float>;
  L::V sums[kStreamStep] = {L::zero(), L::zero(), L::zero(), L::zero()};
  const int64_t length = count / streams / (kStreamStep * L::lanes) * kStreamStep * L::lanes;
  for (int64_t i = 0; i < length; i += kStreamStep * L::lanes)
    for (int64_t s = 0; s < streams; ++s)
#pragma GCC unroll 4
      for (int64_t v = 0; v < kStreamStep; ++v) sums[v] += L::load(x + s * length + i + v * L::lanes);
  L::store(sink, (sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <bool past_caches>
inline void copy_range(const float* from, float* to, int64_t count, int64_t streams) {
  using L = Simd<float>;
  const int64_t length = count / streams / (kStreamStep * L::lanes) * kStreamStep * L::lanes;
  for (int64_t i = 0; i < length; i += kStreamStep * L::lanes)
    for (int64_t s = 0; s < streams; ++s)
#pragma GCC unroll 4
      for (int64_t v = 0; v < kStreamStep; ++v) {
        const int64_t at = s * length + i + v * L::lanes;
        past_caches ? L::stream(to + at, L::load(from + at)) : L::store(to + at, L::load(from + at));
      }
  if (past_caches) L::fence();
}

// `count` steps of a mix, or floats of an array whose address is a multiple of 64.
void probe(const Probe& p) {
  const float* from = static_cast<const float*>(p.from);
  float* to = static_cast<float*>(p.to);
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
  {
    alignas(64) float sink[Simd<float>::lanes];
    const int64_t thread = omp_get_thread_num(), part = p.count / p.threads / 1024 * 1024;
    switch (p.mix) {
      case Mix::kFma: probe_mix<Mix::kFma>(p.count, sink); break;
      case Mix::kAbs: probe_mix<Mix::kAbs>(p.count, sink); break;
      case Mix::kMax: probe_mix<Mix::kMax>(p.count, sink); break;
      case Mix::kSign: probe_mix<Mix::kSign>(p.count, sink); break;
      case Mix::kRead: read_range(from + thread * part, part, p.streams, sink); break;
      case Mix::kCopy: copy_range<false>(from + thread * part, to + thread * part, part, p.streams); break;
      case Mix::kCopyPast: copy_range<true>(from + thread * part, to + thread * part, part, p.streams); break;
    }
    asm volatile("" : : "r"(sink) : "memory");  // as if it were read, or no sum would be taken
  }
}

// fp32 elements that a step of `mix` does on each thread.
int64_t probe_elements(Mix mix) {
  const int64_t rows = mix == Mix::kFma ? kProbeRows<Mix::kFma> : mix == Mix::kSign ? kProbeRows<Mix::kSign> : kProbeRows<Mix::kAbs>;
  return rows * Simd<float>::lanes;
}
