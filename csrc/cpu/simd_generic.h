// Vectors by the compiler's vector extension: the portable kernels (16 bytes) and the 16-wide emulation (64 bytes) by which the
// AVX-512 code paths are tested on machines without it. Included inside the namespace of one instruction set, with kVectorBytes set.

inline float half_to_float(Half h) {
  const std::uint32_t sign = (h.bits & 0x8000u) << 16, exponent = (h.bits >> 10) & 31u, mantissa = h.bits & 0x3ffu;
  std::uint32_t bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | (mantissa << 13);
  } else if (exponent != 0) {
    bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else {
    const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // subnormal: units of 2^-24
    return sign != 0 ? -value : value;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline Half float_to_half(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // rounds past 65504
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 leaves the rounded units of 2^-24 in the low bits
    float shifted;
    std::memcpy(&shifted, &magnitude, 4);
    shifted += 0.5f;
    std::memcpy(&bits, &shifted, 4);
    return {static_cast<std::uint16_t>(sign | (bits - 0x3f000000u))};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u;
  return {static_cast<std::uint16_t>(sign | (rounded >> 13))};
}

inline float bfloat_to_float(BFloat b) {
  const std::uint32_t bits = static_cast<std::uint32_t>(b.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline BFloat float_to_bfloat(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fc0};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(Half x) { return half_to_float(x); }
inline float widen(BFloat x) { return bfloat_to_float(x); }
inline void narrow(float x, float* p) { *p = x; }
inline void narrow(double x, double* p) { *p = x; }
inline void narrow(float x, Half* p) { *p = float_to_half(x); }
inline void narrow(float x, BFloat* p) { *p = float_to_bfloat(x); }

template <class T>
struct Simd {
  typedef T V __attribute__((vector_size(kVectorBytes)));
  using Int = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  typedef Int VI __attribute__((vector_size(kVectorBytes)));
  using Mask = VI;  // all bits of an allowed lane
  static constexpr int lanes = kVectorBytes / sizeof(T);

  static V zero() { return V{}; }
  static V set1(T x) { return V{} + x; }
  template <class S>
  static V load(const S* p) {
    V v;
    for (int i = 0; i < lanes; ++i) v[i] = widen(p[i]);
    return v;
  }
  template <class S>
  static V load(const S* p, int n) {
    V v{};
    for (int i = 0; i < n; ++i) v[i] = widen(p[i]);
    return v;
  }
  template <class S>
  static void store(S* p, V v) {
    for (int i = 0; i < lanes; ++i) narrow(v[i], p + i);
  }
  template <class S>
  static void store(S* p, V v, int n) {
    for (int i = 0; i < n; ++i) narrow(v[i], p + i);
  }
  template <class S>
  static void stream(S* p, V v) {
    store(p, v);
  }
  static void fence() {}
  static V fma(V a, V b, V c) { return a * b + c; }
  static V max(V a, V b) { return a > b ? a : b; }
  static V min(V a, V b) { return a < b ? a : b; }
  static V abs(V a) { return a < 0 ? -a : a; }
  static V sign(V a) { return __builtin_convertvector((a < 0) - (a > 0), V); }
  static V sqrt(V v) {
    for (int i = 0; i < lanes; ++i) v[i] = std::sqrt(v[i]);
    return v;
  }
  // Keeps a loaded vector in its register: the compiler would fold the load into each multiply-add that uses it.
  static V pin(V v) { return v; }
  static T sum(V v) {
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) v[i] += v[i + half];
    return v[0];
  }
  static T largest(V v) {
    T best = v[0];
    for (int i = 1; i < lanes; ++i) best = v[i] > best ? v[i] : best;
    return best;
  }
  static void transpose(V (&rows)[lanes]) {
    for (int i = 0; i < lanes; ++i)
      for (int j = 0; j < i; ++j) {
        const T other = rows[i][j];
        rows[i][j] = rows[j][i];
        rows[j][i] = other;
      }
  }
  static unsigned greater(V a, V b) {
    unsigned bits = 0;
    for (int i = 0; i < lanes; ++i) bits |= static_cast<unsigned>(a[i] > b[i]) << i;
    return bits;
  }
  static VI set1(Int x) { return VI{} + x; }
  static VI load(const Int* p) {
    VI v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static void store(Int* p, VI v) { std::memcpy(p, &v, sizeof(v)); }
  static VI from(Int first) {
    VI v;
    for (int i = 0; i < lanes; ++i) v[i] = first + i;
    return v;
  }
  static Mask all() { return Mask{} - 1; }
  static Mask differs(const Int* p, Int id) { return load(p) != set1(id); }
  // Where `allowed`, a score above the best takes its place; with kTies, one that equals it and has a lower index too.
  template <bool kTies>
  static void keep_larger(Mask allowed, V score, VI index, V& best, VI& best_index) {
    Mask wins = score > best;
    if constexpr (kTies) wins |= (score == best) & (index < best_index);
    wins &= allowed;
    best = wins ? score : best;
    best_index = wins ? index : best_index;
  }
  // Puts s among sorted scores, after its equals; the last is dropped.
  static void insert_sorted(V s, VI index, V& scores, VI& indices) {
    int at = lanes;
    for (; at > 0 && s[0] > scores[at - 1]; --at) {
      if (at == lanes) continue;
      scores[at] = scores[at - 1];
      indices[at] = indices[at - 1];
    }
    if (at == lanes) return;
    scores[at] = s[0];
    indices[at] = index[0];
  }
};
