// The entry points of the CUDA kernels: pointers on the device and sizes. Matrices are contiguous, row-major; `Storage` is the type of the
// embeddings and of their gradients, everything else is float. Each returns a cudaError_t, 0 for success; nothing synchronises.
#pragma once

#include <cstdint>

namespace siamese_fast {
namespace cuda {

enum class Storage : int { kFloat = 0, kHalf = 2, kBFloat = 3 };

// out [queries, supports]
struct MatrixArguments {
  std::int64_t queries, supports, depth;
  const void *q, *s;
  const float *weight, *bias;
  float* out;
};

// grad [queries, supports], centre [depth]; partial_q, partial_s [backward_blocks(rows), depth]: their sum is the weight's gradient.
struct MatrixBackwardArguments {
  std::int64_t queries, supports, depth;
  const float* grad;
  const void *q, *s;
  const float *weight, *centre;
  void *grad_q, *grad_s;
  float *partial_q, *partial_s;
};

// What a pass over pairs does: logits alone; gradients given those of the logits; cross-entropy; cross-entropy and all gradients at once.
enum class PairMode : int { kLogits = 0, kBackward = 1, kCrossEntropy = 2, kCrossEntropyGradient = 3 };

// grad [rows] of kBackward; target [rows]. logits [rows]; each [rows] losses and residual [rows] = d loss / d logit times `share`;
// sums [pair_blocks(rows)] losses of each block; partial [pair_blocks(rows), depth]. Unused pointers are null.
struct PairArguments {
  std::int64_t rows, depth;
  const void *h1, *h2;
  const float *weight, *bias, *grad, *target;
  float pos_weight, share;
  float *logits, *each, *residual;
  double* sums;
  void *grad_h1, *grad_h2;
  float* partial;
};

const char* error_name(int error);
std::int64_t backward_blocks(std::int64_t rows);
std::int64_t pair_blocks(std::int64_t rows);

int l1_similarity_matrix(Storage storage, const MatrixArguments& p, void* stream);
int l1_similarity_matrix_backward(Storage storage, const MatrixBackwardArguments& p, void* stream);
int l1_similarity_pairs(Storage storage, PairMode mode, const PairArguments& p, void* stream);

}  // namespace cuda
}  // namespace siamese_fast
