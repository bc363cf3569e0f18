// The AVX-512 kernels.
#include "headers.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
namespace siamese_fast {
namespace {

#include "simd_avx512.h"
constexpr int kProductRows = 12, kDifferenceRows = 12;  // 24 accumulators of 32 registers
#include "kernels.inl"

}  // namespace

const Kernels kAvx512Kernels = kernel_table("avx512");

}  // namespace siamese_fast
#endif
