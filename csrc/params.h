// What crosses the boundary: one plain struct per native operation, pointers and sizes only.
//
// Matrices are contiguous, row-major. `dtype` names the type of the embeddings and of their gradients; every other floating array is of the
// arithmetic type (double for float64, float otherwise). Rows of the cosine metric have length one or zero.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace siamese_fast {

enum class Metric : int { kEuclidean = 0, kSqEuclidean = 1, kCosine = 2, kDot = 3, kManhattan = 4, kKoch = 5 };
enum class Hinge : int { kRelu = 0, kSoftplus = 1 };
enum class Reduction : int { kNone = 0, kMean = 1, kSum = 2, kMeanNonzero = 3 };

struct Common {
  Dtype dtype;
  int threads;
};

// logits[b] = bias + sum_k weight[k] |h1[b,k] - h2[b,k]|
struct L1Similarity : Common {
  std::int64_t rows, depth;
  const void *h1, *h2, *weight, *bias;
  void* logits;
};

// Gradients of the pairs' logits: grad [rows] in; grad_h1, grad_h2, grad_weight [depth], grad_bias [1] out.
struct L1SimilarityBackward : Common {
  std::int64_t rows, depth;
  const void *grad, *h1, *h2, *weight;
  void *grad_h1, *grad_h2, *grad_weight, *grad_bias;
};

// Binary cross-entropy of the pairs: loss ([rows] or [1]) and residual [rows] = d(reduced loss)/d(logit).
struct L1SimilarityBce : Common {
  std::int64_t rows, depth;
  const void *h1, *h2, *weight, *bias, *target;
  double pos_weight;
  Reduction reduction;
  void *loss, *residual;
};

// The same loss [1] and all its gradients in one pass over h1 and h2.
struct L1SimilarityBceGrad : Common {
  std::int64_t rows, depth;
  const void *h1, *h2, *weight, *bias, *target;
  double pos_weight;
  Reduction reduction;
  void *loss, *grad_h1, *grad_h2, *grad_weight, *grad_bias;
};

// distances[b] = d(x[b], y[b])
struct Distance : Common {
  Metric metric;
  std::int64_t rows, depth;
  const void *x, *y;
  void* distances;
};

struct DistanceBackward : Common {
  Metric metric;
  std::int64_t rows, depth;
  const void *grad, *x, *y, *distances;
  void *grad_x, *grad_y;
};

// Triplets: losses of rows selected by index (a null index array selects row t; -1 means there is no such row).
// anchor rows come from x [x_rows], positive and negative rows from tables of table_rows rows.
// loss ([count], or [1]) , d_ap [count], d_an [count], scale [1] = 1 / the number of averaged triplets.
struct TripletLoss : Common {
  Metric metric;
  Hinge hinge;
  Reduction reduction;
  double margin;
  bool zero_positive;
  std::int64_t count, depth, x_rows, table_rows;
  const void *x, *positive_table, *negative_table;
  const std::int64_t *anchor, *positive, *negative;
  void *loss, *d_ap, *d_an, *scale;
};

// grad [count], or [] with one_grad, is the gradient of each triplet's loss. By index (positive, negative not null): one writer per row of
// grad_x and grad_table (null when the table is x itself: everything then goes to grad_x). By rows: grad_x, grad_positive, grad_negative
// [count, depth].
struct TripletLossBackward : Common {
  Metric metric;
  Hinge hinge;
  double margin;
  bool zero_positive;
  std::int64_t count, depth, x_rows, table_rows;
  bool one_grad;
  const void *grad, *x, *positive_table, *negative_table, *d_ap, *d_an;
  const std::int64_t *anchor, *positive, *negative;
  void *grad_x, *grad_table, *grad_positive, *grad_negative;
};

// out[i,j] = the distance of x[i] and y[j], or the Koch logit with weight and bias (exact: the sum of w|q-s|).
struct Matrix : Common {
  Metric metric;
  bool exact;
  std::int64_t rows, columns, depth;
  const void *x, *y, *weight, *bias;
  void* out;
};

// grad [rows, columns]; distances [rows, columns] for euclidean. Koch: grad_weight [depth] and grad_bias [1] too.
struct MatrixBackward : Common {
  Metric metric;
  std::int64_t rows, columns, depth;
  const void *grad, *x, *y, *weight, *distances;
  void *grad_x, *grad_y, *grad_weight, *grad_bias;
};

// Hardest pairs of x among ref, or with `self` among x, never a row with itself (ref and ref_labels are then not read).
// Indices are -1 where there is none. self_index may be null.
struct HardestPairs : Common {
  Metric metric;
  bool self;
  std::int64_t rows, ref_rows, depth;
  const void *x, *ref;
  const std::int64_t *labels, *ref_labels, *self_index;
  std::int64_t *positive, *negative;
};

// Supports packed for the product, by pack_support: see nearest_support.inl for the layout. Null when the rows are to be packed on the way.
struct NearestSupport : Common {
  Metric metric;
  std::int64_t queries, supports, depth, k;
  const void *q, *s, *packed, *weight, *bias;
  void* scores;
  std::int64_t* indices;
};

struct PackSupport : Common {
  Metric metric;
  std::int64_t supports, depth;
  const void* s;
  void* packed;
};

// scores [queries, classes]: the best or the mean score of each class's supports, -inf for a class without any.
struct ClassScores : Common {
  Metric metric;
  bool mean;
  std::int64_t queries, supports, depth, classes;
  const void *q, *s, *weight, *bias;
  const std::int64_t* class_index;
  void* scores;
};

// One loop that measures a limit of the machine: `count` steps of a mix of instructions, or floats read or copied in `streams` streams.
enum class Mix : int { kFma = 0, kAbs = 1, kMax = 2, kSign = 3, kRead = 4, kCopy = 5, kCopyPast = 6 };

struct Probe {
  Mix mix;
  int threads;
  std::int64_t count, streams;
  const void* from;
  void* to;
};

// All pairs of x with ref, or with `self` of x with itself (ref and ref_labels are then not read): see pair_losses/ for the formulas and
// their parameters. Arithmetic dtypes only. self_index may be null.
enum class PairFormula : int { kNtXent = 0, kSupCon = 1, kContrastive = 2, kMultiSimilarity = 3, kCircle = 4 };

// What makes two rows positives: one label; a matrix [rows, ref_rows] of signed bytes in `labels` (1 positive, 0 negative, -1 neither);
// sets of labels that meet, `words` words of bits a row. The latter two never with `self`.
enum class Relation : int { kClasses = 0, kMatrix = 1, kSets = 2 };

struct Pairs : Common {
  PairFormula formula;
  Metric metric;
  bool self;
  double parameter[4];
  std::int64_t rows, ref_rows, depth;
  const void *x, *ref;
  const std::int64_t *labels, *ref_labels, *self_index;
  Relation relation;
  std::int64_t words;
  bool ignores;  // rows of ignore_label are left out: nothing is written for them
  std::int64_t ignore_label;
};

// losses and counts [rows, components], statistics [fields, rows] for the backward pass.
struct PairLoss : Pairs {
  void *losses, *counts, *statistics;
};

// Fields [fields, rows] of a loss, not closed, in and out: what one sweep over these pairs adds to them.
struct PairLossVisit : Pairs {
  int sweep;
  void* fields;
};

// grad [rows, components] in; grad_ref is null with `self`.
struct PairLossBackward : Pairs {
  const void *grad, *statistics;
  void *grad_x, *grad_ref;
};

// losses and counts [rows] of every triplet, or every semi-hard one, and sums [2, rows] of the scores of positives and of negatives;
// parameter[0] is the margin. With grad_x not null, the gradient of the sum of weight [rows]
// times losses (weight may be null: ones); grad_ref is null with `self`. `formula` is not read.
struct BatchAllTriplets : Pairs {
  const void* weight;
  void *losses, *counts, *sums, *grad_x, *grad_ref;
  Hinge hinge;
};

// positive [rows, positives] and negative [rows, negatives], filled with -1 before: indices into ref, or into x with `self`.
struct PairRanking : Pairs {
  std::int64_t positives, negatives;
  bool easy, beyond;  // the nearest positives; negatives farther than the first positive
  std::int64_t *positive, *negative;
};

}  // namespace siamese_fast
