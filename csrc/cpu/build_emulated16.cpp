// The 16-lane code paths of AVX-512 on AVX2 machines: slow, for tests; in editable and in-place builds alone.
#include "headers.h"

#if defined(__x86_64__) && defined(SIAMESE_FAST_EMULATION)
#pragma GCC optimize("O1")  // 64-byte vectors in 32-byte registers take the optimiser twice as long as all the rest
#pragma GCC target("avx2,fma,f16c")
namespace siamese_fast {
namespace {

constexpr int kVectorBytes = 64;
constexpr int kProductRows = 12, kDifferenceRows = 12;
#include "simd_generic.h"
#include "kernels.inl"

}  // namespace

const Kernels kEmulated16Kernels = kernel_table("emulated16");

}  // namespace siamese_fast
#endif
