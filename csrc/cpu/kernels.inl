// Every kernel of one instruction set: included once by each build_<isa>.cpp, inside its anonymous namespace, after its simd header.

using std::int32_t;
using std::int64_t;

// Calls f with a value of the storage type that `dtype` names.
template <class F>
void for_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::kFloat32: return f(float{});
    case Dtype::kFloat64: return f(double{});
    case Dtype::kFloat16: return f(Half{});
    case Dtype::kBFloat16: return f(BFloat{});
  }
  throw std::invalid_argument("dtype");
}

template <class P, template <class> class Kernel>
void by_dtype(const P& p) {
  for_dtype(p.dtype, [&](auto storage) { Kernel<decltype(storage)>::run(p); });
}

#include "buffer.inl"
#include "rows.inl"
#include "row_distance.inl"
#include "tile.inl"
#include "lane_best.inl"
#include "top_k.inl"
#include "sigmoid.inl"
#include "l1_similarity.inl"
#include "distance.inl"
#include "triplet_loss.inl"
#include "triplet_loss_backward.inl"
#include "matrix.inl"
#include "matrix_backward.inl"
#include "classes.inl"
#include "exact_mining.inl"
#include "hardest_pairs.inl"
#include "nearest_support.inl"
#include "sorted_supports.inl"
#include "class_best.inl"
#include "class_scores.inl"
#include "limits.inl"
#include "exponentials.inl"
#include "pair_blocks.inl"
#include "weighted_rows.inl"
#include "pair_gradient.inl"
#include "pair_losses/ntxent.inl"
#include "pair_losses/supcon.inl"
#include "pair_losses/contrastive.inl"
#include "pair_losses/multi_similarity.inl"
#include "pair_losses/circle.inl"
#include "pair_loss.inl"
#include "triplet_blocks.inl"
#include "batch_all.inl"
#include "semi_hard.inl"
#include "ranked_pairs.inl"

constexpr Kernels kernel_table(const char* name) {
  return {name,
          l1_similarity,
          l1_similarity_backward,
          l1_similarity_bce,
          l1_similarity_bce_grad,
          distance,
          distance_backward,
          triplet_loss,
          triplet_loss_backward,
          matrix,
          matrix_backward,
          hardest_pairs,
          nearest_support,
          packed_bytes,
          pack_support,
          class_scores,
          probe,
          probe_elements,
          pair_loss,
          pair_loss_visit,
          pair_loss_backward,
          batch_all,
          semi_hard,
          ranked_pairs};
}
