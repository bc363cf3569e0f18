// The portable kernels: 16-byte vectors by the compiler's vector extension, no instruction set beyond the platform's own.
#include "headers.h"

#if defined(__x86_64__)
#pragma GCC optimize("O1")  // half the compile time, where every machine of the last ten years runs AVX2
#endif
namespace siamese_fast {
namespace {

constexpr int kVectorBytes = 16;
constexpr int kProductRows = 4, kDifferenceRows = 4;  // 8 accumulators of 16 registers
#include "simd_generic.h"
#include "kernels.inl"

}  // namespace

const Kernels kScalarKernels = kernel_table("scalar");

}  // namespace siamese_fast
