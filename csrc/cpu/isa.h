// Instruction sets: which there are, which this machine runs, and the table of kernels compiled for each.
#pragma once

#include <string>
#include <vector>

#include "../params.h"

namespace siamese_fast {

// One entry per native operation, filled once per instruction set by build_<isa>.cpp.
struct Kernels {
  const char* name;
  void (*l1_similarity)(const L1Similarity&);
  void (*l1_similarity_backward)(const L1SimilarityBackward&);
  void (*l1_similarity_bce)(const L1SimilarityBce&);
  void (*l1_similarity_bce_grad)(const L1SimilarityBceGrad&);
  void (*distance)(const Distance&);
  void (*distance_backward)(const DistanceBackward&);
  void (*triplet_loss)(const TripletLoss&);
  void (*triplet_loss_backward)(const TripletLossBackward&);
  void (*matrix)(const Matrix&);
  void (*matrix_backward)(const MatrixBackward&);
  void (*hardest_pairs)(const HardestPairs&);
  void (*nearest_support)(const NearestSupport&);
  std::int64_t (*packed_bytes)(const PackSupport&);
  void (*pack_support)(const PackSupport&);
  void (*class_scores)(const ClassScores&);
  void (*probe)(const Probe&);
  std::int64_t (*probe_elements)(Mix);
  void (*pair_loss)(const PairLoss&);
  void (*pair_loss_visit)(const PairLossVisit&);
  void (*pair_loss_backward)(const PairLossBackward&);
  void (*batch_all)(const BatchAllTriplets&);
  void (*semi_hard)(const BatchAllTriplets&);
  void (*ranked_pairs)(const PairRanking&);
};

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kEmulated16Kernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// The kernels in use: the best this machine runs, or the set that SIAMESE_FAST_ISA or use_instruction_set names.
const Kernels& kernels();

// Names of the sets this machine runs, slowest first.
std::vector<std::string> instruction_sets();

// Throws std::invalid_argument, naming the accepted sets, when this machine does not run `name`.
void use_instruction_set(const std::string& name);

}  // namespace siamese_fast
