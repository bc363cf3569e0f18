// Distances of matching rows, and their gradient.
//
// Limit: memory. Forward reads 2 B D elements; backward reads them again and writes 2 B D, past the caches when they are many. Instructions
// a vector: forward 4 (two loads, subtract, fma or and + add), backward 8 (two loads, two stores, two subtracts or signs, two multiplies).

template <class S>
struct DistanceKernel {
  static void run(const Distance& p) {
    const S *x = static_cast<const S*>(p.x), *y = static_cast<const S*>(p.y);
    Compute<S>* distances = static_cast<Compute<S>*>(p.distances);
    for_metric(p.metric, [&](auto metric) {
      for_chunks(p.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          distances[i] = row_distance<decltype(metric)::value>(x + i * p.depth, y + i * p.depth, p.depth);
      });
    });
  }
};

template <Metric M, bool kStream, class S>
inline void distance_rows_backward(const Compute<S>* grad, const Compute<S>* distances, const S* x, const S* y, int64_t rows, int64_t depth,
                                   S* grad_x, S* grad_y) {
  using T = Compute<S>;
  for (int64_t i = 0; i < rows; ++i, x += depth, y += depth, grad_x += depth, grad_y += depth) {
    const auto factor = Simd<T>::set1(distance_factor<M>(grad[i], distances[i]));
    for_lanes<T>(depth, [&](int64_t k, int n) {
      const auto a = load_lanes<T>(x, k, n), b = load_lanes<T>(y, k, n);
      write_lanes<kStream, T>(grad_x, k, n, factor * distance_direction<M, T>(a, b));
      write_lanes<kStream, T>(grad_y, k, n, factor * distance_direction<M, T>(b, a));
    });
  }
  if constexpr (kStream) Simd<T>::fence();
}

template <class S>
struct DistanceBackwardKernel {
  static void run(const DistanceBackward& p) {
    using T = Compute<S>;
    const S *x = static_cast<const S*>(p.x), *y = static_cast<const S*>(p.y);
    const T *grad = static_cast<const T*>(p.grad), *distances = static_cast<const T*>(p.distances);
    S *grad_x = static_cast<S*>(p.grad_x), *grad_y = static_cast<S*>(p.grad_y);
    const int64_t depth = p.depth, row_bytes = depth * static_cast<int64_t>(sizeof(S));
    for_metric(p.metric, [&](auto metric) {
      constexpr Metric M = decltype(metric)::value;
      const bool stream = streams(p.rows, row_bytes, grad_x, grad_y);
      const auto rows_backward = stream ? distance_rows_backward<M, true, S> : distance_rows_backward<M, false, S>;
      for_chunks(p.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
        const int64_t at = begin * depth;
        rows_backward(grad + begin, distances + begin, x + at, y + at, end - begin, depth, grad_x + at, grad_y + at);
      });
    });
  }
};

void distance(const Distance& p) { by_dtype<Distance, DistanceKernel>(p); }
void distance_backward(const DistanceBackward& p) { by_dtype<DistanceBackward, DistanceBackwardKernel>(p); }
