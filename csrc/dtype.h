// Element types as they travel from Python: half types are storage only, arithmetic is float or double.
#pragma once

#include <cstdint>

namespace siamese_fast {

enum class Dtype : int { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kBFloat16 = 3 };

struct Half {
  std::uint16_t bits;
};

struct BFloat {
  std::uint16_t bits;
};

// The arithmetic type of a storage type.
template <class S>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeOf<S>::type;

}  // namespace siamese_fast
