// What the CUDA kernels stand on: storage types, vector loads, sums over a warp. SIAMESE_FAST_EMULATE compiles the same sources as plain
// C++, a fiber a thread, for tests (tests/cuda/emulate.h).
#pragma once

#include <cstdint>

#ifdef SIAMESE_FAST_EMULATE
#include "emulate.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define SIAMESE_FAST_LAUNCH(kernel, grid, threads, stream, ...) kernel<<<grid, threads, 0, stream>>>(__VA_ARGS__)
#endif

namespace siamese_fast {
namespace cuda {

using Half = __half;
using BFloat = __nv_bfloat16;
using Stream = cudaStream_t;
using std::int64_t;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(Half x) { return __half2float(x); }
__device__ __forceinline__ float widen(BFloat x) { return __bfloat162float(x); }

template <class S>
__device__ __forceinline__ S narrow(float x);
template <>
__device__ __forceinline__ float narrow<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ Half narrow<Half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ BFloat narrow<BFloat>(float x) {
  return __float2bfloat16_rn(x);
}

// Elements that one 16-byte access moves.
template <class S>
constexpr int kVector = 16 / sizeof(S);

template <class S>
struct alignas(16) Packed {
  S item[kVector<S>];
};

// kVector elements of a row from k on, zeros past its end. kAligned: every row begins at a multiple of 16 bytes, so a vector never
// straddles the end.
template <bool kAligned, class S>
__device__ __forceinline__ void load_vector(const S* row, int64_t k, int64_t depth, bool exists, float* out) {
  if constexpr (kAligned) {
    Packed<S> packed{};
    if (exists && k < depth) packed = *reinterpret_cast<const Packed<S>*>(row + k);
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) out[i] = exists && k < depth ? widen(packed.item[i]) : 0.0f;
  } else {
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) out[i] = exists && k + i < depth ? widen(row[k + i]) : 0.0f;
  }
}

template <bool kAligned, class S>
__device__ __forceinline__ void store_vector(S* row, int64_t k, int64_t depth, const float* in) {
  if constexpr (kAligned) {
    Packed<S> packed;
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) packed.item[i] = narrow<S>(in[i]);
    if (k < depth) *reinterpret_cast<Packed<S>*>(row + k) = packed;
  } else {
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i)
      if (k + i < depth) row[k + i] = narrow<S>(in[i]);
  }
}

// The sum over a warp, in every lane, in a fixed order.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// torch's sign: 0 for 0 and for NaN, inf - inf among them.
__device__ __forceinline__ float sign_of(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f; }

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

constexpr int64_t kLargestGrid = (int64_t(1) << 31) - 1;

}  // namespace cuda
}  // namespace siamese_fast
