// The Koch head on given pairs: logit = bias + sum_k w_k |h1_k - h2_k|, its gradient, and both fused with binary cross-entropy.
//
// Limit: memory. Forward reads 2 B D elements; backward reads them again and writes 2 B D, past the caches when they are many. The
// one-pass form works on blocks of rows that stay in L2 between their logits and their gradients, and asks for the next block while it
// writes: it reads once and writes once, both at a time (65536 x 128 on one Emerald Rapids core: 5.0 ms, 5.9 without asking).
// Instructions a vector: forward 5 (two loads, subtract, and, fma with w from L1), backward 14 (4 loads, 3 stores, subtract,
// sign, 2 multiplies, fma). The exponentials are vectors over rows: nothing beside D = 128 columns. Reached on one Zen 4 core, 65536 x
// 128 and 8192 x 4096: forward 97 to 100 % of read bandwidth; backward as fast as copying the same bytes or faster.
//
// The gradient of w is summed over fixed chunks of rows whose partial sums are then added in order: the same bits on any number of threads.

template <class S>
inline Compute<S> l1_logit(const S* h1, const S* h2, const Compute<S>* weight, int64_t depth) {
  using T = Compute<S>;
  return sum_over<T>(depth, [&](int64_t k, int n, auto sum) {
    const auto difference = Simd<T>::abs(load_lanes<T>(h1, k, n) - load_lanes<T>(h2, k, n));
    return Simd<T>::fma(difference, load_lanes<T>(weight, k, n), sum);
  });
}

template <class S>
inline void l1_logits(const S* h1, const S* h2, const Compute<S>* weight, Compute<S> bias, int64_t rows, int64_t depth,
                      Compute<S>* logits) {
  for (int64_t i = 0; i < rows; ++i) logits[i] = bias + l1_logit(h1 + i * depth, h2 + i * depth, weight, depth);
}

// The gradients of rows, given those of their logits; the weight's is added to. What stands `ahead` elements further on is fetched to L2.
template <bool kStream, class S>
inline void l1_rows_backward(const Compute<S>* slope, const S* h1, const S* h2, const Compute<S>* weight, int64_t rows, int64_t depth,
                             int64_t ahead, S* grad_h1, S* grad_h2, Compute<S>* grad_weight) {
  using T = Compute<S>;
  using L = Simd<T>;
  for (int64_t i = 0; i < rows; ++i, h1 += depth, h2 += depth, grad_h1 += depth, grad_h2 += depth) {
    const auto g = L::set1(slope[i]);
    for_lanes<T>(depth, [&](int64_t k, int n) {
      if (ahead != 0) {
        __builtin_prefetch(h1 + k + ahead, 0, 2);
        __builtin_prefetch(h2 + k + ahead, 0, 2);
      }
      const auto difference = load_lanes<T>(h1, k, n) - load_lanes<T>(h2, k, n);
      const auto grad = g * load_lanes<T>(weight, k, n) * L::sign(difference);
      write_lanes<kStream, T>(grad_h1, k, n, grad);
      write_lanes<kStream, T>(grad_h2, k, n, -grad);
      store_lanes<T>(grad_weight, k, n, L::fma(g, L::abs(difference), load_lanes<T>(grad_weight, k, n)));
    });
  }
  if constexpr (kStream) L::fence();
}

template <class S>
inline auto l1_backward_for(int64_t rows, int64_t depth, const S* grad_h1, const S* grad_h2) {
  const bool stream = streams(rows, depth * static_cast<int64_t>(sizeof(S)), grad_h1, grad_h2);
  return stream ? l1_rows_backward<true, S> : l1_rows_backward<false, S>;
}

// Loss and residual (the gradient in the logit, times `scale`) of rows whose logits are in `residual`.
template <class T>
inline void cross_entropy(const T* __restrict target, int64_t rows, T pos_weight, T scale, T* __restrict loss, T* __restrict residual) {
  for (int64_t i = 0; i < rows; ++i) {
    const T z = residual[i], negative = T(1) - target[i], positive = pos_weight * target[i];
    const T e = exp_of_negative(z < T(0) ? z : -z), tail = log_of_one_plus(e), small = e / (T(1) + e), large = T(1) / (T(1) + e);
    loss[i] = negative * ((z > T(0) ? z : T(0)) + tail) + positive * ((z < T(0) ? -z : T(0)) + tail);
    residual[i] = scale * (negative * (z < T(0) ? small : large) - positive * (z < T(0) ? large : small));
  }
}

// Partial sums of each chunk of rows: `width` columns, one line a chunk.
template <class T>
struct ChunkSums {
  ChunkSums(int64_t rows, int64_t columns)
      : chunks(chunk_count(rows)), width(columns), stride(round_up(columns, 64 / sizeof(T))), sums(chunks * stride) {}
  int64_t chunks, width, stride;
  Buffer<T> sums;

  T* cleared(int64_t chunk) const {
    T* line = sums.get() + chunk * stride;
    std::fill(line, line + width, T(0));
    return line;
  }

  // The totals of columns begin..end-1, chunk after chunk, in double: there may be many chunks.
  void total(int64_t begin, int64_t end, double* totals) const {
    std::fill(totals, totals + (end - begin), 0.0);
    for (int64_t c = 0; c < chunks; ++c)
      for (int64_t k = begin; k < end; ++k) totals[k - begin] += static_cast<double>(sums[c * stride + k]);
  }

  void total(int64_t columns, int threads, T* out) const {
    for_chunks(columns, threads, [&](int64_t, int64_t begin, int64_t end) {
      double totals[kRowChunk];
      total(begin, end, totals);
      for (int64_t k = begin; k < end; ++k) out[k] = static_cast<T>(totals[k - begin]);
    });
  }

  T total_of(int64_t column, double scale = 1) const {
    double sum;
    total(column, column + 1, &sum);
    return static_cast<T>(sum * scale);
  }
};

template <class T>
inline T sum_of(const T* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]);
  return static_cast<T>(sum);
}

inline double mean_scale(Reduction reduction, int64_t rows) {
  return reduction == Reduction::kMean ? 1.0 / static_cast<double>(std::max<int64_t>(1, rows)) : 1.0;
}

template <class S>
struct L1SimilarityKernel {
  static void run(const L1Similarity& p) {
    using T = Compute<S>;
    const S *h1 = static_cast<const S*>(p.h1), *h2 = static_cast<const S*>(p.h2);
    const T *weight = static_cast<const T*>(p.weight), bias = *static_cast<const T*>(p.bias);
    T* logits = static_cast<T*>(p.logits);
    for_chunks(p.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      l1_logits(h1 + begin * p.depth, h2 + begin * p.depth, weight, bias, end - begin, p.depth, logits + begin);
    });
  }
};

template <class S>
struct L1SimilarityBackwardKernel {
  static void run(const L1SimilarityBackward& p) {
    using T = Compute<S>;
    const S *h1 = static_cast<const S*>(p.h1), *h2 = static_cast<const S*>(p.h2);
    const T *grad = static_cast<const T*>(p.grad), *weight = static_cast<const T*>(p.weight);
    S *grad_h1 = static_cast<S*>(p.grad_h1), *grad_h2 = static_cast<S*>(p.grad_h2);
    const int64_t depth = p.depth;
    const auto rows_backward = l1_backward_for(p.rows, depth, grad_h1, grad_h2);
    const ChunkSums<T> sums(p.rows, depth + 1);
    for_chunks(p.rows, p.threads, [&](int64_t c, int64_t begin, int64_t end) {
      T* line = sums.cleared(c);
      rows_backward(grad + begin, h1 + begin * depth, h2 + begin * depth, weight, end - begin, depth, 0, grad_h1 + begin * depth,
                    grad_h2 + begin * depth, line);
      line[depth] = sum_of(grad + begin, end - begin);
    });
    sums.total(depth, p.threads, static_cast<T*>(p.grad_weight));
    *static_cast<T*>(p.grad_bias) = sums.total_of(depth);
  }
};

template <class S>
struct L1SimilarityBceKernel {
  static void run(const L1SimilarityBce& p) {
    using T = Compute<S>;
    const S *h1 = static_cast<const S*>(p.h1), *h2 = static_cast<const S*>(p.h2);
    const T *weight = static_cast<const T*>(p.weight), *target = static_cast<const T*>(p.target), bias = *static_cast<const T*>(p.bias);
    T *out = static_cast<T*>(p.loss), *residual = static_cast<T*>(p.residual);
    const double scale = mean_scale(p.reduction, p.rows);
    const ChunkSums<T> sums(p.rows, 1);
    for_chunks(p.rows, p.threads, [&](int64_t c, int64_t begin, int64_t end) {
      T chunk[kRowChunk], *loss = p.reduction == Reduction::kNone ? out + begin : chunk;
      l1_logits(h1 + begin * p.depth, h2 + begin * p.depth, weight, bias, end - begin, p.depth, residual + begin);
      cross_entropy(target + begin, end - begin, static_cast<T>(p.pos_weight), static_cast<T>(scale), loss, residual + begin);
      *sums.cleared(c) = sum_of(loss, end - begin);
    });
    if (p.reduction != Reduction::kNone) *out = sums.total_of(0, scale);
  }
};

// Bytes of h1 and h2 that stay in L2 between the two passes over a block of rows.
constexpr int64_t kBlockBytes = 1 << 17;

template <class S>
struct L1SimilarityBceGradKernel {
  static void run(const L1SimilarityBceGrad& p) {
    using T = Compute<S>;
    const S *h1 = static_cast<const S*>(p.h1), *h2 = static_cast<const S*>(p.h2);
    const T *weight = static_cast<const T*>(p.weight), *target = static_cast<const T*>(p.target), bias = *static_cast<const T*>(p.bias);
    S *grad_h1 = static_cast<S*>(p.grad_h1), *grad_h2 = static_cast<S*>(p.grad_h2);
    const int64_t depth = p.depth;
    const auto rows_backward = l1_backward_for(p.rows, depth, grad_h1, grad_h2);
    const int64_t block = std::max<int64_t>(1, kBlockBytes / (2 * depth * static_cast<int64_t>(sizeof(S))));
    const double scale = mean_scale(p.reduction, p.rows);
    const ChunkSums<T> sums(p.rows, depth + 2);
    for_chunks(p.rows, p.threads, [&](int64_t c, int64_t begin, int64_t end) {
      T *line = sums.cleared(c), loss[kRowChunk], residual[kRowChunk];
      for (int64_t i = begin; i < end; i += block) {
        const int64_t rows = std::min(block, end - i), first = i - begin;
        l1_logits(h1 + i * depth, h2 + i * depth, weight, bias, rows, depth, residual + first);
        cross_entropy(target + i, rows, static_cast<T>(p.pos_weight), static_cast<T>(scale), loss + first, residual + first);
        rows_backward(residual + first, h1 + i * depth, h2 + i * depth, weight, rows, depth, block * depth, grad_h1 + i * depth,
                      grad_h2 + i * depth, line);
      }
      line[depth] = sum_of(residual, end - begin);
      line[depth + 1] = sum_of(loss, end - begin);
    });
    sums.total(depth, p.threads, static_cast<T*>(p.grad_weight));
    *static_cast<T*>(p.grad_bias) = sums.total_of(depth);
    *static_cast<T*>(p.loss) = sums.total_of(depth + 1, scale);
  }
};

void l1_similarity(const L1Similarity& p) { by_dtype<L1Similarity, L1SimilarityKernel>(p); }
void l1_similarity_backward(const L1SimilarityBackward& p) { by_dtype<L1SimilarityBackward, L1SimilarityBackwardKernel>(p); }
void l1_similarity_bce(const L1SimilarityBce& p) { by_dtype<L1SimilarityBce, L1SimilarityBceKernel>(p); }
void l1_similarity_bce_grad(const L1SimilarityBceGrad& p) { by_dtype<L1SimilarityBceGrad, L1SimilarityBceGradKernel>(p); }
