// The AVX2 kernels.
#include "headers.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
namespace siamese_fast {
namespace {

#include "simd_avx2.h"
constexpr int kProductRows = 6, kDifferenceRows = 4;  // 12 and 8 accumulators of 16 registers
#include "kernels.inl"

}  // namespace

const Kernels kAvx2Kernels = kernel_table("avx2");

}  // namespace siamese_fast
#endif
