// The distance of two rows under each metric, and its gradient: one definition for every kernel that looks at pairs of rows.
//
// Rows of the cosine metric have length one or zero: 1 - cosine is |x - y|^2 / 2, plus 1/2 for each row that is zero.

template <Metric M>
using MetricConstant = std::integral_constant<Metric, M>;

// Calls f with the row metric as a compile-time constant: f(auto metric) { row_distance<decltype(metric)::value>(...) }.
template <class F>
void for_metric(Metric metric, F&& f) {
  switch (metric) {
    case Metric::kEuclidean: return f(MetricConstant<Metric::kEuclidean>{});
    case Metric::kSqEuclidean: return f(MetricConstant<Metric::kSqEuclidean>{});
    case Metric::kCosine: return f(MetricConstant<Metric::kCosine>{});
    case Metric::kDot: return f(MetricConstant<Metric::kDot>{});
    case Metric::kManhattan: return f(MetricConstant<Metric::kManhattan>{});
    case Metric::kKoch: return;
  }
}

template <class S>
inline bool is_zero_row(const S* row, int64_t depth) {
  using T = Compute<S>;
  using L = Simd<T>;
  int64_t k = 0;
  for (; k + L::lanes <= depth; k += L::lanes)
    if (L::greater(L::abs(L::load(row + k)), L::zero()) != 0) return false;
  return k == depth || L::greater(L::abs(L::load(row + k, static_cast<int>(depth - k))), L::zero()) == 0;
}

// The distances of one row to J others, which share its loads.
template <Metric M, int J, class S>
inline __attribute__((always_inline)) void row_distances(const S* x, const S* const (&y)[J], int64_t depth, Compute<S> (&out)[J]) {
  using T = Compute<S>;
  using L = Simd<T>;
  sums_over<J>(
      depth,
      [&](int j, int64_t k, int n, typename L::V total) {
        const auto a = load_lanes<T>(x, k, n), b = load_lanes<T>(y[j], k, n);
        if constexpr (M == Metric::kDot)
          return L::fma(a, b, total);
        else if constexpr (M == Metric::kManhattan)
          return total + L::abs(a - b);
        else
          return L::fma(a - b, a - b, total);
      },
      out);
  for (int j = 0; j < J; ++j) {
    if constexpr (M == Metric::kEuclidean)
      out[j] = std::sqrt(out[j]);
    else if constexpr (M == Metric::kDot)
      out[j] = -out[j];
    else if constexpr (M == Metric::kCosine)
      out[j] = T(0.5) * (out[j] + T(is_zero_row(x, depth)) + T(is_zero_row(y[j], depth)));
  }
}

template <Metric M, class S>
inline Compute<S> row_distance(const S* x, const S* y, int64_t depth) {
  const S* const other[1] = {y};
  Compute<S> out[1];
  row_distances<M>(x, other, depth, out);
  return out[0];
}

// d distance / d own = distance_factor(distance) * distance_direction(own, other), for either of the two rows.
template <Metric M, class T>
inline typename Simd<T>::V distance_direction(typename Simd<T>::V own, typename Simd<T>::V other) {
  if constexpr (M == Metric::kDot)
    return -other;
  else if constexpr (M == Metric::kManhattan)
    return Simd<T>::sign(own - other);
  else
    return own - other;
}

// The factor times the gradient that arrives; 0 at euclidean distance 0, NaN for a NaN gradient.
template <Metric M, class T>
inline T distance_factor(T gradient, T distance) {
  if constexpr (M == Metric::kEuclidean)
    return distance == T(0) ? gradient * T(0) : gradient / distance;
  else if constexpr (M == Metric::kSqEuclidean)
    return T(2) * gradient;
  else
    return gradient;
}
