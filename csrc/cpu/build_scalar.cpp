// The portable kernels: 16-byte vectors by the compiler's vector extension, no instruction set beyond the platform's own.
#include "headers.h"

namespace siamese_fast {
namespace {

constexpr int kVectorBytes = 16;
constexpr int kProductRows = 4, kDifferenceRows = 4;  // 8 accumulators of 16 registers
#include "simd_generic.h"
#include "kernels.inl"

}  // namespace

const Kernels kScalarKernels = kernel_table("scalar");

}  // namespace siamese_fast
