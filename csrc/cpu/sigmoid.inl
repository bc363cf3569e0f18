// exp(-|v|), log1p of it, and what losses make of them: plain scalar code without branches or calls, so that loops over it vectorise. Both
// are accurate to a few units in the last place, relative to the result: the loss of a well-separated pair keeps its digits.

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  using Bits = std::uint32_t;
  static constexpr int mantissa = 23, exp_terms = 8, log_terms = 7;
  static constexpr float lowest = -104.0f, lift = 0x1p64f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};

template <>
struct ExpConstants<double> {
  using Bits = std::uint64_t;
  static constexpr int mantissa = 52, exp_terms = 14, log_terms = 16;
  static constexpr double lowest = -746.0, lift = 0x1p512, ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
};

// exp(x) for x <= 0: 2^n exp(r), the n taken from the low bits of x / ln 2 + 1.5 * 2^mantissa. The power is built `lift` times too large,
// so that the last product rounds into the subnormals, and below `lowest` to 0.
template <class T>
inline T exp_of_negative(T x) {
  using C = ExpConstants<T>;
  using Bits = typename C::Bits;
  constexpr T rounder = T(3) * static_cast<T>(Bits(1) << (C::mantissa - 1)), lift = C::lift;
  x = x < C::lowest ? C::lowest : x;
  const T shifted = x * T(1.44269504088896340736) + rounder, n = shifted - rounder;
  const T r = (x - n * C::ln2_high) - n * C::ln2_low;
  T sum = 1;
#pragma GCC unroll 16
  for (int i = C::exp_terms - 1; i > 0; --i) sum = sum * (r * (T(1) / T(i))) + T(1);
  Bits power, exponent;
  std::memcpy(&power, &shifted, sizeof(T));
  std::memcpy(&exponent, &lift, sizeof(T));
  power = (power << C::mantissa) + exponent;
  T scale;
  std::memcpy(&scale, &power, sizeof(T));
  return scale * sum * (T(1) / lift);
}

// log(1 + e) for 0 <= e <= 1: 2 artanh(s), s = e / (2 + e) <= 1/3.
template <class T>
inline T log_of_one_plus(T e) {
  using C = ExpConstants<T>;
  const T s = e / (T(2) + e), square = s * s;
  T sum = 0;
#pragma GCC unroll 16
  for (int i = C::log_terms - 1; i >= 0; --i) sum = sum * square + T(2) / T(2 * i + 1);
  return s * sum;
}

template <class T>
inline T softplus(T v) {
  return (v > T(0) ? v : T(0)) + log_of_one_plus(exp_of_negative(v < T(0) ? v : -v));
}

template <class T>
inline T sigmoid(T v) {
  const T e = exp_of_negative(v < T(0) ? v : -v);
  return (v < T(0) ? e : T(1)) / (T(1) + e);
}
