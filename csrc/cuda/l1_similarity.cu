// The Koch head on given pairs, with its cross-entropy: one kernel whose modes share their two halves.
//
// A block of 8 warps takes 32 pairs. First half: a warp sums the logits of four of them, 16 bytes a lane and load. Second half (gradients):
// a thread owns a vector of columns and walks the block's pairs, which now lie in the cache, writes both gradients and sums its share of
// the weight's. Each partial has one writer and is added up in order afterwards. Limit: memory, h1 and h2 read once and two gradients
// written.
#include "device.cuh"
#include "l1_similarity.h"

namespace siamese_fast {
namespace cuda {
namespace {

constexpr int kPairs = 32, kThreads = 256, kWarps = kThreads / 32;

// log(1 + e) for 0 <= e <= 1.
__device__ __forceinline__ float softplus(float v) { return fmaxf(v, 0.0f) + log1pf(expf(-fabsf(v))); }

__device__ __forceinline__ float sigmoid(float v) {
  const float e = expf(-fabsf(v));
  return (v < 0.0f ? e : 1.0f) / (1.0f + e);
}

template <bool kAligned, class S>
__device__ __forceinline__ float logit_of(const PairArguments& p, int64_t row) {
  const S *h1 = static_cast<const S*>(p.h1) + row * p.depth, *h2 = static_cast<const S*>(p.h2) + row * p.depth;
  float total = 0.0f;
  for (int64_t k = threadIdx.x % 32 * kVector<S>; k < p.depth; k += 32 * kVector<S>) {
    float a[kVector<S>], b[kVector<S>], sum = 0.0f;
    load_vector<kAligned>(h1, k, p.depth, true, a);
    load_vector<kAligned>(h2, k, p.depth, true, b);
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i)
      if (kAligned || k + i < p.depth) sum = fmaf(fabsf(a[i] - b[i]), p.weight[k + i], sum);
    total += sum;
  }
  return warp_sum(total) + *p.bias;
}

// The gradients of the block's pairs, given those of their logits. The threads form as many groups as the columns leave, each with every
// group-th pair; their shares of the weight's gradient are added in order.
template <bool kAligned, class S>
__device__ __forceinline__ void write_gradients(const PairArguments& p, int64_t first, int pairs, const float* residual) {
  constexpr int V = kVector<S>;
  __shared__ float shares[kThreads][V + 1];
  int width = 32;
  while (width < kThreads && width * V < p.depth) width *= 2;
  const int group = threadIdx.x / width, groups = kThreads / width;
  for (int64_t start = 0; start < p.depth; start += int64_t(width) * V) {
    const int64_t k = start + int64_t(threadIdx.x % width) * V;
    float weight[V], share[V] = {};
#pragma unroll
    for (int i = 0; i < V; ++i) weight[i] = k + i < p.depth ? p.weight[k + i] : 0.0f;
    for (int r = group; k < p.depth && r < pairs; r += groups) {
      const int64_t at = (first + r) * p.depth;
      float a[V], b[V], up[V], down[V];
      load_vector<kAligned>(static_cast<const S*>(p.h1) + at, k, p.depth, true, a);
      load_vector<kAligned>(static_cast<const S*>(p.h2) + at, k, p.depth, true, b);
      const float slope = residual[r];
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float difference = a[i] - b[i];
        up[i] = slope * weight[i] * sign_of(difference);
        down[i] = -up[i];
        share[i] = fmaf(slope, fabsf(difference), share[i]);
      }
      store_vector<kAligned>(static_cast<S*>(p.grad_h1) + at, k, p.depth, up);
      store_vector<kAligned>(static_cast<S*>(p.grad_h2) + at, k, p.depth, down);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < V; ++i) shares[threadIdx.x][i] = share[i];
    __syncthreads();
    if (group != 0) continue;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      float added = 0.0f;
      for (int g = 0; g < groups; ++g) added += shares[g * width + threadIdx.x][i];
      if (k + i < p.depth) p.partial[blockIdx.x * p.depth + k + i] = added;
    }
  }
}

// Blocks a multiprocessor holds: the gradients of rows of halves read element by element need more than 64 registers a thread.
template <PairMode kMode, bool kAligned, class S>
constexpr int kBlocks = !kAligned && kVector<S> > 4 && (kMode == PairMode::kBackward || kMode == PairMode::kCrossEntropyGradient) ? 2 : 4;

template <PairMode kMode, bool kAligned, class S>
__global__ void __launch_bounds__(kThreads, kBlocks<kMode, kAligned, S>) pair_kernel(PairArguments p) {
  __shared__ float residual[kPairs], losses[kPairs];
  constexpr bool kEntropy = kMode == PairMode::kCrossEntropy || kMode == PairMode::kCrossEntropyGradient;
  const int64_t first = int64_t(blockIdx.x) * kPairs;
  const int pairs = static_cast<int>(p.rows - first < kPairs ? p.rows - first : kPairs), lane = threadIdx.x % 32;
  if constexpr (kMode == PairMode::kBackward) {
    if (threadIdx.x < pairs) residual[threadIdx.x] = p.grad[first + threadIdx.x];
  } else {
    for (int r = threadIdx.x / 32; r < pairs; r += kWarps) {
      const float logit = logit_of<kAligned, S>(p, first + r);
      if (lane != 0) continue;
      if constexpr (kMode == PairMode::kLogits) {
        p.logits[first + r] = logit;
      } else {
        const float target = p.target[first + r], positive = p.pos_weight * target;
        losses[r] = (1.0f - target) * softplus(logit) + positive * softplus(-logit);
        residual[r] = ((1.0f - target) * sigmoid(logit) - positive * sigmoid(-logit)) * p.share;
        p.residual[first + r] = residual[r];
        if (p.each != nullptr) p.each[first + r] = losses[r];
      }
    }
  }
  if constexpr (kMode != PairMode::kLogits) __syncthreads();
  if constexpr (kEntropy) {
    if (threadIdx.x == 0 && p.sums != nullptr) {
      double sum = 0.0;
      for (int r = 0; r < pairs; ++r) sum += losses[r];
      p.sums[blockIdx.x] = sum;
    }
  }
  if constexpr (kMode == PairMode::kBackward || kMode == PairMode::kCrossEntropyGradient)
    write_gradients<kAligned, S>(p, first, pairs, residual);
}

template <PairMode kMode, class S>
int pairs(const PairArguments& p, Stream stream) {
  const int64_t blocks = pair_blocks(p.rows);
  if (blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
  if (blocks == 0) return cudaSuccess;
  std::uintptr_t bits = static_cast<std::uintptr_t>(p.depth % kVector<S>);
  for (const void* pointer : {p.h1, p.h2, static_cast<const void*>(p.grad_h1), static_cast<const void*>(p.grad_h2)})
    bits |= reinterpret_cast<std::uintptr_t>(pointer) % 16;
  auto* kernel = bits == 0 ? pair_kernel<kMode, true, S> : pair_kernel<kMode, false, S>;
  SIAMESE_FAST_LAUNCH(kernel, static_cast<unsigned>(blocks), kThreads, stream, p);
  return cudaGetLastError();
}

template <class S>
int by_mode(PairMode mode, const PairArguments& p, Stream stream) {
  switch (mode) {
    case PairMode::kLogits: return pairs<PairMode::kLogits, S>(p, stream);
    case PairMode::kBackward: return pairs<PairMode::kBackward, S>(p, stream);
    case PairMode::kCrossEntropy: return pairs<PairMode::kCrossEntropy, S>(p, stream);
    case PairMode::kCrossEntropyGradient: return pairs<PairMode::kCrossEntropyGradient, S>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

const char* error_name(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int64_t pair_blocks(int64_t rows) { return ceil_div<int64_t>(rows, kPairs); }

int l1_similarity_pairs(Storage storage, PairMode mode, const PairArguments& p, void* stream) {
  const auto s = static_cast<Stream>(stream);
  return storage == Storage::kFloat  ? by_mode<float>(mode, p, s)
         : storage == Storage::kHalf ? by_mode<Half>(mode, p, s)
                                     : by_mode<BFloat>(mode, p, s);
}

}  // namespace cuda
}  // namespace siamese_fast
