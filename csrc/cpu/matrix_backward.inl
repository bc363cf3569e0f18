// Gradients of all pairs. With t = x_i - y_j, c_ij from the gradient of the output, and G the slope of the metric,
//
//     A_ik = sum_j c_ij G(x_ik, y_jk)      B_jk = sum_i c_ij G(x_ik, y_jk)
//
// give dx = A, dy = -B (dx = A, dy = B for dot, where the slope is the other row), and for the Koch head dq = w A, ds = -w B and
// dw_k = sum_i (q_ik - m_k) A_ik - sum_j (s_jk - m_k) B_jk with m the mean of q, which keeps both sums small.
//
// Vectors run along k and one thread owns a range of k for all rows: every element has one writer and one order of additions at any
// thread count, without atomics or partial copies. kGroup rows of x and of A stay in registers while columns stream by; per vector and
// pair: sub, slope, fma (A), fma (B): 4 instructions, 3 for squares, 2 for dot. Sums are folded: A every kStrip columns, B every group.

constexpr int kGroup = Simd<float>::lanes == 16 ? 8 : 4;  // rows and sums are half of 32, or of 16 registers
constexpr int64_t kStrip = 128;                           // columns whose y and B stay in L1
constexpr int64_t kBlock = 16;  // groups whose coefficients for a strip stay in L2 while the vectors of k pass over them

struct SignSlope {
  template <class L, class V>
  static void step(V x, V y, V c, V& a, V& b) {
    const V slope = L::sign(x - y);
    a = L::fma(c, slope, a);
    b = L::fma(c, slope, b);
  }
};

struct DifferenceSlope {
  template <class L, class V>
  static void step(V x, V y, V c, V& a, V& b) {
    const V slope = x - y;
    a = L::fma(c, slope, a);
    b = L::fma(c, slope, b);
  }
};

struct ProductSlope {
  template <class L, class V>
  static void step(V x, V y, V c, V& a, V& b) {
    a = L::fma(c, y, a);
    b = L::fma(c, x, b);
  }
};

// Rows cut into vectors: vector v of row r at data[(v * padded + r) * lanes], so that a range of k is one contiguous stream.
template <class T>
struct Sliced {
  static constexpr int L = Simd<T>::lanes;
  Sliced(int64_t rows, int64_t depth)
      : padded(round_up(rows, kGroup) + 1), vectors((depth + L - 1) / L), data(padded * vectors * L) {}  // +1 breaks 4 KiB aliasing
  T* at(int64_t vector, int64_t row) const { return data.get() + (vector * padded + row) * L; }
  int64_t padded, vectors;
  Buffer<T> data;
};

template <class T, class S>
inline void slice(const S* x, int64_t rows, int64_t depth, int threads, const Sliced<T>& out) {
  for_chunks(rows, threads, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for_lanes<T>(depth, [&](int64_t k, int n) { Simd<T>::store(out.at(k / Simd<T>::lanes, i), load_lanes<T>(x + i * depth, k, n)); });
  });
  for (int64_t v = 0; v < out.vectors; ++v)
    for (int64_t i = rows; i < out.padded; ++i) Simd<T>::store(out.at(v, i), Simd<T>::zero());
}

// c of `count` rows and a strip of columns, row r at out[r * kStrip]. Copied even where c is the gradient
// itself: rows of a matrix whose width is a power of two would fall on the same cache sets.
template <class T>
inline void strip_coefficients(const MatrixBackward& p, int64_t i, int64_t count, int64_t begin, int64_t end, T* out) {
  using L = Simd<T>;
  const T *grad = static_cast<const T*>(p.grad), *distances = static_cast<const T*>(p.distances);
  const auto scale = L::set1(p.metric == Metric::kSqEuclidean ? T(2) : p.metric == Metric::kDot ? T(-1) : T(1));
  for (int64_t r = 0; r < count; ++r, out += kStrip) {
    const T* row = grad + (i + r) * p.columns + begin;
    for_lanes<T>(end - begin, [&](int64_t j, int n) { L::store(out + j, load_lanes<T>(row, j, n) * scale); });
    if (p.metric != Metric::kEuclidean) continue;
    const T* d = distances + (i + r) * p.columns + begin;
    for (int64_t j = 0; j < end - begin; ++j) out[j] = distance_factor<Metric::kEuclidean>(out[j], d[j]);
  }
}

// Rows i .. i + R - 1 of one vector of k, against a strip of columns.
template <class Slope, int R, class T>
inline void strip(const Sliced<T>& x, const Sliced<T>& y, const Sliced<T>& a, const Sliced<T>& b, int64_t v, int64_t i, int64_t begin,
                  int64_t end, const T* c) {
  using L = Simd<T>;
  typename L::V rows[R], sums[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    rows[r] = L::load(x.at(v, i + r));
    sums[r] = L::zero();
  }
  for (int64_t j = begin; j < end; ++j, ++c) {
    const auto column = L::load(y.at(v, j));
    auto total = L::zero();
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) Slope::template step<L>(rows[r], column, L::set1(c[r * kStrip]), sums[r], total);
    L::store(b.at(v, j), L::load(b.at(v, j)) + total);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) L::store(a.at(v, i + r), L::load(a.at(v, i + r)) + sums[r]);
}

template <class Slope, class T>
void all_strips(const MatrixBackward& p, const Sliced<T>& x, const Sliced<T>& y, const Sliced<T>& a, const Sliced<T>& b) {
  const int team = static_cast<int>(std::min<int64_t>(p.threads, x.vectors));
  constexpr int64_t kCoefficients = kBlock * kGroup * kStrip;
  Buffer<T> coefficients(team * kCoefficients);
#pragma omp parallel for schedule(static) num_threads(team) if (team > 1)
  for (int t = 0; t < team; ++t) {
    T* c = coefficients.get() + t * kCoefficients;
    const int64_t first = x.vectors * t / team, last = x.vectors * (t + 1) / team;
    for (int64_t v = first; v < last; ++v) {
      std::memset(a.at(v, 0), 0, static_cast<std::size_t>(a.padded * Simd<T>::lanes) * sizeof(T));
      std::memset(b.at(v, 0), 0, static_cast<std::size_t>(b.padded * Simd<T>::lanes) * sizeof(T));
    }
    for (int64_t j = 0; j < p.columns; j += kStrip) {
      const int64_t stop = std::min(p.columns, j + kStrip);
      for (int64_t block = 0; block < p.rows; block += kBlock * kGroup) {
        const int64_t count = std::min(p.rows - block, kBlock * kGroup), whole = count / kGroup * kGroup;
        strip_coefficients<T>(p, block, count, j, stop, c);
        for (int64_t v = first; v < last; ++v) {
          for (int64_t r = 0; r < whole; r += kGroup) strip<Slope, kGroup>(x, y, a, b, v, block + r, j, stop, c + r * kStrip);
          for (int64_t r = whole; r < count; ++r) strip<Slope, 1>(x, y, a, b, v, block + r, j, stop, c + r * kStrip);
        }
      }
    }
  }
}

// out = factor * weight * sums, back in rows.
template <class T, class S>
inline void unslice(const Sliced<T>& sums, int64_t rows, int64_t depth, T factor, const T* weight, int threads, S* out) {
  for_chunks(rows, threads, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for_lanes<T>(depth, [&](int64_t k, int n) {
        auto value = Simd<T>::load(sums.at(k / Simd<T>::lanes, i)) * Simd<T>::set1(factor);
        if (weight != nullptr) value = value * load_lanes<T>(weight, k, n);
        store_lanes<T>(out + i * depth, k, n, value);
      });
  });
}

// sum over rows of (x - mean) * sums of one vector of k, folded in fixed chunks.
template <class T>
inline typename Simd<T>::V moment(const Sliced<T>& x, const Sliced<T>& sums, int64_t v, int64_t rows, typename Simd<T>::V mean) {
  using L = Simd<T>;
  auto total = L::zero();
  for (int64_t i = 0; i < rows; i += kRowChunk) {
    auto part = L::zero();
    for (int64_t r = i; r < std::min(rows, i + kRowChunk); ++r) part = L::fma(L::load(x.at(v, r)) - mean, L::load(sums.at(v, r)), part);
    total += part;
  }
  return total;
}

template <class T>
inline void koch_parameters(const MatrixBackward& p, const Sliced<T>& x, const Sliced<T>& y, const Sliced<T>& a, const Sliced<T>& b) {
  using L = Simd<T>;
  for (int64_t v = 0; v < x.vectors; ++v) {
    auto mean = L::zero();
    for (int64_t i = 0; i < p.rows; ++i) mean += L::load(x.at(v, i));
    mean = mean * L::set1(T(1) / static_cast<T>(std::max<int64_t>(p.rows, 1)));
    const auto value = moment(x, a, v, p.rows, mean) - moment(y, b, v, p.columns, mean);
    const int64_t k = v * L::lanes;
    store_lanes<T>(static_cast<T*>(p.grad_weight), k, static_cast<int>(std::min<int64_t>(L::lanes, p.depth - k)), value);
  }
  const T* grad = static_cast<const T*>(p.grad);
  Buffer<T> sums(p.rows);
  for_chunks(p.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      sums[i] = sum_over<T>(p.columns, [&](int64_t k, int n, auto sum) { return sum + load_lanes<T>(grad + i * p.columns, k, n); });
  });
  *static_cast<T*>(p.grad_bias) = sum_over<T>(p.rows, [&](int64_t k, int n, auto sum) { return sum + load_lanes<T>(sums.get(), k, n); });
}

template <class S>
struct MatrixBackwardKernel {
  static void run(const MatrixBackward& p) {
    using T = Compute<S>;
    const bool koch = p.metric == Metric::kKoch, dot = p.metric == Metric::kDot;
    Sliced<T> x(p.rows, p.depth), y(p.columns, p.depth), a(p.rows, p.depth), b(p.columns, p.depth);
    slice<T>(static_cast<const S*>(p.x), p.rows, p.depth, p.threads, x);
    slice<T>(static_cast<const S*>(p.y), p.columns, p.depth, p.threads, y);
    if (dot)
      all_strips<ProductSlope, T>(p, x, y, a, b);
    else if (koch || p.metric == Metric::kManhattan)
      all_strips<SignSlope, T>(p, x, y, a, b);
    else
      all_strips<DifferenceSlope, T>(p, x, y, a, b);
    const T* weight = koch ? static_cast<const T*>(p.weight) : nullptr;
    unslice<T>(a, p.rows, p.depth, T(1), weight, p.threads, static_cast<S*>(p.grad_x));
    unslice<T>(b, p.columns, p.depth, dot ? T(1) : T(-1), weight, p.threads, static_cast<S*>(p.grad_y));
    if (koch) koch_parameters<T>(p, x, y, a, b);
  }
};

void matrix_backward(const MatrixBackward& p) { by_dtype<MatrixBackward, MatrixBackwardKernel>(p); }
