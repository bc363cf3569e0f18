// The Koch head over all pairs: logit_ij = b + sum_k w_k |q_ik - s_jk|, forward and backward, with no tensor core: an L1 norm is no
// product.
//
// Forward: a block of 256 threads makes a 128 x 128 tile of logits, a thread 8 x 8 of it in registers: 64 times FADD, FFMA with |.|, for 4
// loads of 16 bytes and one of w from shared memory. Limit: two fp32 instructions an element. Slices of 16 columns are staged k-major,
// halves widened on the way; the next slice is loaded into registers while this one is used.
//
// Backward: A_ik = sum_j g_ij sign(q_ik - s_jk), a block of 128 threads makes 64 x 64 of it, a thread 4 x 8: two compares and two
// predicated FADD an element. The same kernel serves the supports with g transposed and the sign of w reversed by exchanging the operands.
//
// Sums longer than 256 terms are folded into a second accumulator. The order of additions is that of k (forward) and of j (backward): a
// logit is a function of its two rows.
#include "device.cuh"
#include "l1_similarity.h"

namespace siamese_fast {
namespace cuda {
namespace {

constexpr int kTile = 128, kSlice = 16, kThreads = 256, kMicro = 8, kFold = 256;
// Columns of a staged slice: padded, so that the transposing stores of a warp fall into different banks.
constexpr int kPitch = kTile + 4;

// One operand's share of a slice in registers: 128 rows x 16 columns over 256 threads.
template <bool kAligned, class S>
struct Staged {
  static constexpr int kVectors = kSlice / kVector<S>;        // a row's vectors in a slice: 4 or 2
  static constexpr int kCount = kTile * kVectors / kThreads;  // vectors a thread: 2 or 1
  float value[kCount][kVector<S>];

  __device__ __forceinline__ void load(const S* rows, int64_t first, int64_t count, int64_t k, int64_t depth) {
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      const int item = threadIdx.x + n * kThreads;
      const int64_t row = first + item / kVectors;
      const bool exists = row < count;
      load_vector<kAligned>(rows + (exists ? row : 0) * depth, k + item % kVectors * kVector<S>, depth, exists, value[n]);
    }
  }

  __device__ __forceinline__ void store(float (*slice)[kPitch]) const {
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      const int item = threadIdx.x + n * kThreads;
#pragma unroll
      for (int i = 0; i < kVector<S>; ++i) slice[item % kVectors * kVector<S> + i][item / kVectors] = value[n][i];
    }
  }
};

__device__ __forceinline__ void read4(const float* from, float* to) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

// A thread's rows are 4 i .. 4 i + 3 and 64 + those, its columns likewise: the 16-byte reads of a warp then fall into different banks.
__device__ __forceinline__ int spread(int group, int r) { return r / 4 * (kTile / 2) + group * 4 + r % 4; }

template <bool kAligned, class S>
__global__ void __launch_bounds__(kThreads) matrix_kernel(const S* q, const S* s, const float* weight, const float* bias, float* out,
                                                          int64_t queries, int64_t supports, int64_t depth) {
  __shared__ __align__(16) float q_slice[kSlice][kPitch], s_slice[kSlice][kPitch];
  __shared__ float w_slice[kSlice];
  const int64_t columns = ceil_div<int64_t>(supports, kTile);
  const int64_t i0 = blockIdx.x / columns * kTile, j0 = blockIdx.x % columns * kTile;
  const int row_group = threadIdx.x / 16, column_group = threadIdx.x % 16;
  float total[kMicro][kMicro] = {}, sum[kMicro][kMicro] = {};
  Staged<kAligned, S> q_next, s_next;
  q_next.load(q, i0, queries, 0, depth);
  s_next.load(s, j0, supports, 0, depth);
  for (int64_t k = 0; k < depth; k += kSlice) {
    q_next.store(q_slice);
    s_next.store(s_slice);
    if (threadIdx.x < kSlice) w_slice[threadIdx.x] = k + threadIdx.x < depth ? weight[k + threadIdx.x] : 0.0f;
    __syncthreads();
    if (k + kSlice < depth) {
      q_next.load(q, i0, queries, k + kSlice, depth);
      s_next.load(s, j0, supports, k + kSlice, depth);
    }
#pragma unroll
    for (int n = 0; n < kSlice; ++n) {
      float a[kMicro], b[kMicro];
      read4(&q_slice[n][row_group * 4], a), read4(&q_slice[n][kTile / 2 + row_group * 4], a + 4);
      read4(&s_slice[n][column_group * 4], b), read4(&s_slice[n][kTile / 2 + column_group * 4], b + 4);
      const float w = w_slice[n];
#pragma unroll
      for (int r = 0; r < kMicro; ++r)
#pragma unroll
        for (int c = 0; c < kMicro; ++c) sum[r][c] = fmaf(fabsf(a[r] - b[c]), w, sum[r][c]);
    }
    if ((k + kSlice) % kFold == 0 || k + kSlice >= depth) {
#pragma unroll
      for (int r = 0; r < kMicro; ++r)
#pragma unroll
        for (int c = 0; c < kMicro; ++c) total[r][c] += sum[r][c], sum[r][c] = 0.0f;
    }
    __syncthreads();
  }
  const float shift = *bias;
#pragma unroll
  for (int r = 0; r < kMicro; ++r) {
    const int64_t i = i0 + spread(row_group, r);
    if (i >= queries) continue;
#pragma unroll
    for (int c = 0; c < kMicro; ++c) {
      const int64_t j = j0 + spread(column_group, c);
      if (j < supports) out[i * supports + j] = total[r][c] + shift;
    }
  }
}

constexpr int kRows = 64, kColumns = 64, kChunk = 32, kBackwardThreads = 128, kOwnRows = 4, kOwnColumns = 8;

// The gradient of `own` [rows, depth] and its share of the weight's, [blocks of rows, depth]. g_ij lies at i * row_stride + j *
// other_stride.
template <class S>
__global__ void __launch_bounds__(kBackwardThreads)
    backward_kernel(const float* grad, const S* own, const S* other, const float* weight, const float* centre, S* out, float* partial,
                    int64_t rows, int64_t others, int64_t depth, int64_t row_stride, int64_t other_stride) {
  __shared__ __align__(16) float g_chunk[kChunk][kRows + 4], s_chunk[kChunk][kColumns];
  const int64_t column_blocks = ceil_div<int64_t>(depth, kColumns);
  const int64_t row_block = blockIdx.x / column_blocks;
  const int64_t i0 = row_block * kRows, k0 = blockIdx.x % column_blocks * kColumns;
  const int row_group = threadIdx.x / 8, column_group = threadIdx.x % 8;
  float mine[kOwnRows][kOwnColumns], total[kOwnRows][kOwnColumns] = {}, sum[kOwnRows][kOwnColumns] = {};
#pragma unroll
  for (int r = 0; r < kOwnRows; ++r)
#pragma unroll
    for (int c = 0; c < kOwnColumns; ++c) {
      const int64_t i = i0 + row_group * kOwnRows + r, k = k0 + column_group * kOwnColumns + c;
      mine[r][c] = i < rows && k < depth ? widen(own[i * depth + k]) : 0.0f;
    }
  for (int64_t j0 = 0; j0 < others; j0 += kChunk) {
    // Threads read neighbours in the dimension of g that is contiguous.
    for (int item = threadIdx.x; item < kChunk * kRows; item += kBackwardThreads) {
      const int r = other_stride == 1 ? item / kChunk : item % kRows, n = other_stride == 1 ? item % kChunk : item / kRows;
      const int64_t i = i0 + r, j = j0 + n;
      g_chunk[n][r] = i < rows && j < others ? grad[i * row_stride + j * other_stride] : 0.0f;
    }
    for (int item = threadIdx.x; item < kChunk * kColumns; item += kBackwardThreads) {
      const int64_t j = j0 + item / kColumns, k = k0 + item % kColumns;
      s_chunk[item / kColumns][item % kColumns] = j < others && k < depth ? widen(other[j * depth + k]) : 0.0f;
    }
    __syncthreads();
#pragma unroll 4
    for (int n = 0; n < kChunk; ++n) {
      float g[kOwnRows], s[kOwnColumns];
      read4(&g_chunk[n][row_group * kOwnRows], g);
      read4(&s_chunk[n][column_group * kOwnColumns], s), read4(&s_chunk[n][column_group * kOwnColumns + 4], s + 4);
#pragma unroll
      for (int r = 0; r < kOwnRows; ++r)
#pragma unroll
        for (int c = 0; c < kOwnColumns; ++c) {
          if (mine[r][c] > s[c]) sum[r][c] += g[r];
          if (mine[r][c] < s[c]) sum[r][c] -= g[r];
        }
    }
    if ((j0 + kChunk) % kFold == 0 || j0 + kChunk >= others) {
#pragma unroll
      for (int r = 0; r < kOwnRows; ++r)
#pragma unroll
        for (int c = 0; c < kOwnColumns; ++c) total[r][c] += sum[r][c], sum[r][c] = 0.0f;
    }
    __syncthreads();
  }
  float share[kOwnColumns] = {};
#pragma unroll
  for (int r = 0; r < kOwnRows; ++r) {
    const int64_t i = i0 + row_group * kOwnRows + r;
#pragma unroll
    for (int c = 0; c < kOwnColumns; ++c) {
      const int64_t k = k0 + column_group * kOwnColumns + c;
      if (i >= rows || k >= depth) continue;
      out[i * depth + k] = narrow<S>(total[r][c] * weight[k]);
      share[c] += (mine[r][c] - centre[k]) * total[r][c];
    }
  }
  // The chunk's memory is free: the rows' shares of a column are added in order.
  float (*shares)[kColumns] = s_chunk;
  static_assert(kRows / kOwnRows <= kChunk, "a row of shares for each group of rows");
#pragma unroll
  for (int c = 0; c < kOwnColumns; ++c) shares[row_group][column_group * kOwnColumns + c] = share[c];
  __syncthreads();
  const int64_t k = k0 + threadIdx.x;
  if (threadIdx.x < kColumns && k < depth) {
    float added = 0.0f;
    for (int g = 0; g < kRows / kOwnRows; ++g) added += shares[g][threadIdx.x];
    partial[row_block * depth + k] = added;
  }
}

template <class S>
int matrix(const MatrixArguments& p, Stream stream) {
  const int64_t blocks = ceil_div<int64_t>(p.queries, kTile) * ceil_div<int64_t>(p.supports, kTile);
  if (blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
  if (blocks == 0) return cudaSuccess;
  const S *q = static_cast<const S*>(p.q), *s = static_cast<const S*>(p.s);
  const bool aligned = p.depth % kVector<S> == 0 && (reinterpret_cast<std::uintptr_t>(q) | reinterpret_cast<std::uintptr_t>(s)) % 16 == 0;
  auto* kernel = aligned ? matrix_kernel<true, S> : matrix_kernel<false, S>;
  SIAMESE_FAST_LAUNCH(kernel, static_cast<unsigned>(blocks), kThreads, stream, q, s, p.weight, p.bias, p.out, p.queries, p.supports,
                      p.depth);
  return cudaGetLastError();
}

template <class S>
int matrix_backward(const MatrixBackwardArguments& p, Stream stream) {
  const int64_t column_blocks = ceil_div<int64_t>(p.depth, kColumns);
  const auto pass = [&](const void* own, const void* other, void* out, float* partial, int64_t rows, int64_t others, int64_t row_stride,
                        int64_t other_stride) -> int {
    const int64_t blocks = ceil_div<int64_t>(rows, kRows) * column_blocks;
    if (blocks > kLargestGrid) return cudaErrorInvalidConfiguration;
    if (blocks == 0) return cudaSuccess;
    SIAMESE_FAST_LAUNCH(backward_kernel<S>, static_cast<unsigned>(blocks), kBackwardThreads, stream, p.grad, static_cast<const S*>(own),
                        static_cast<const S*>(other), p.weight, p.centre, static_cast<S*>(out), partial, rows, others, p.depth, row_stride,
                        other_stride);
    return cudaGetLastError();
  };
  const int error = pass(p.q, p.s, p.grad_q, p.partial_q, p.queries, p.supports, p.supports, 1);
  return error ? error : pass(p.s, p.q, p.grad_s, p.partial_s, p.supports, p.queries, 1, p.supports);
}

}  // namespace

int64_t backward_blocks(int64_t rows) { return ceil_div<int64_t>(rows, kRows); }

int l1_similarity_matrix(Storage storage, const MatrixArguments& p, void* stream) {
  const auto s = static_cast<Stream>(stream);
  return storage == Storage::kFloat ? matrix<float>(p, s) : storage == Storage::kHalf ? matrix<Half>(p, s) : matrix<BFloat>(p, s);
}

int l1_similarity_matrix_backward(Storage storage, const MatrixBackwardArguments& p, void* stream) {
  const auto s = static_cast<Stream>(stream);
  return storage == Storage::kFloat  ? matrix_backward<float>(p, s)
         : storage == Storage::kHalf ? matrix_backward<Half>(p, s)
                                     : matrix_backward<BFloat>(p, s);
}

}  // namespace cuda
}  // namespace siamese_fast
