// exp, log1p and what losses make of them on whole vectors: the formulas of sigmoid.inl with fused steps. A NaN stays NaN.

// exp(x) for x <= 0, or above it by rounding only; below `lowest`, -inf included, it is 0.
template <class T>
inline typename Simd<T>::V exp_lanes(typename Simd<T>::V x) {
  using L = Simd<T>;
  using V = typename L::V;
  using C = ExpConstants<T>;
  using Bits = typename C::Bits;
  typedef Bits BitLanes __attribute__((vector_size(sizeof(V))));
  constexpr T rounder = T(3) * static_cast<T>(Bits(1) << (C::mantissa - 1)), lift = C::lift;
  x = L::max(L::set1(C::lowest), x);  // a comparison with NaN is false, and the second operand is kept
  const V shifted = L::fma(x, L::set1(T(1.44269504088896340736)), L::set1(rounder)), n = shifted - L::set1(rounder);
  const V r = L::fma(n, L::set1(-C::ln2_low), L::fma(n, L::set1(-C::ln2_high), x));
  V sum = L::set1(T(1));
#pragma GCC unroll 16
  for (int i = C::exp_terms - 1; i > 0; --i) sum = L::fma(sum, r * L::set1(T(1) / T(i)), L::set1(T(1)));
  Bits exponent;
  std::memcpy(&exponent, &lift, sizeof(T));
  BitLanes power;
  std::memcpy(&power, &shifted, sizeof(V));
  power = (power << C::mantissa) + exponent;
  V scale;
  std::memcpy(&scale, &power, sizeof(V));
  return scale * sum * L::set1(T(1) / lift);
}

// log(1 + e) for 0 <= e <= 1.
template <class T>
inline typename Simd<T>::V log_of_one_plus_lanes(typename Simd<T>::V e) {
  using L = Simd<T>;
  using C = ExpConstants<T>;
  const auto s = e / (L::set1(T(2)) + e), square = s * s;
  auto sum = L::zero();
#pragma GCC unroll 16
  for (int i = C::log_terms - 1; i >= 0; --i) sum = L::fma(sum, square, L::set1(T(2) / T(2 * i + 1)));
  return s * sum;
}

template <class T>
inline typename Simd<T>::V softplus_lanes(typename Simd<T>::V v) {
  using L = Simd<T>;
  return L::max(L::zero(), v) + log_of_one_plus_lanes<T>(exp_lanes<T>(-L::abs(v)));
}

template <class T>
inline typename Simd<T>::V sigmoid_lanes(typename Simd<T>::V v) {
  using L = Simd<T>;
  const auto e = exp_lanes<T>(-L::abs(v)), one = L::set1(T(1));
  return (v < L::zero() ? e : one) / (one + e);
}
