// Logits of all pairs by the emulated kernel, held to a plain loop: exits with 0 if they are right, 1 if not, 2 if the launch failed.
#include <cmath>
#include <vector>

#include "l1_similarity.h"

int main() {
  using namespace siamese_fast::cuda;
  constexpr std::int64_t queries = 130, supports = 150, depth = 40;
  std::vector<float> q(queries * depth), s(supports * depth), weight(depth), bias(1, 0.5f), out(queries * supports, NAN);
  unsigned state = 1;
  for (auto* values : {&q, &s, &weight})
    for (float& value : *values) value = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / (1 << 24) - 0.5f;
  if (l1_similarity_matrix(Storage::kFloat, {queries, supports, depth, q.data(), s.data(), weight.data(), bias.data(), out.data()},
                           nullptr))
    return 2;
  for (std::int64_t i = 0; i < queries; ++i)
    for (std::int64_t j = 0; j < supports; ++j) {
      double logit = bias[0];
      for (std::int64_t k = 0; k < depth; ++k) logit += double(weight[k]) * std::abs(double(q[i * depth + k]) - s[j * depth + k]);
      if (!(std::abs(out[i * supports + j] - logit) < 1e-5)) return 1;
    }
  return 0;
}
