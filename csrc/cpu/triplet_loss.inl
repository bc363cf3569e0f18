// Losses of chosen triplets, by row index or by rows.
//
// A triplet is two distances among 3 rows that lie anywhere: 8 instructions a vector (4 loads, 2 subtracts, 2 fma). Limit: the bandwidth of
// the cache that holds the rows; N = 16384, D = 128 (8 MB) is read at 36 GB/s on one Zen 4 core. Sums are taken over fixed chunks of
// triplets, in double: the same bits on any number of threads.

// The rows of triplet t; null where there is none.
template <class S, class P>
struct Triplets {
  explicit Triplets(const P& params)
      : p(params),
        x(static_cast<const S*>(p.x)),
        positives(static_cast<const S*>(p.positive_table)),
        negatives(static_cast<const S*>(p.negative_table)) {}
  const P& p;
  const S *x, *positives, *negatives;

  static int64_t pick(const int64_t* index, int64_t rows, int64_t t) {
    const int64_t row = index == nullptr ? t : index[t];
    return row < rows ? row : -1;
  }
  int64_t anchor_index(int64_t t) const { return pick(p.anchor, p.x_rows, t); }
  int64_t positive_index(int64_t t) const { return pick(p.positive, p.table_rows, t); }
  int64_t negative_index(int64_t t) const { return pick(p.negative, p.table_rows, t); }

  const S* row(const S* table, int64_t index) const { return index < 0 ? nullptr : table + index * p.depth; }
  const S* anchor(int64_t t) const { return row(x, anchor_index(t)); }
  const S* positive(int64_t t) const { return row(positives, positive_index(t)); }
  const S* negative(int64_t t) const { return row(negatives, negative_index(t)); }
};

// 0 for a row without NaN, NaN otherwise: the distance to a row that does not exist.
template <class S>
inline Compute<S> nothing(const S* row, int64_t depth) {
  return holds_nan(row, depth) ? std::numeric_limits<Compute<S>>::quiet_NaN() : Compute<S>(0);
}

template <class T>
inline T triplet_value(Hinge hinge, T violation) {
  if (hinge == Hinge::kSoftplus) return softplus(violation);
  return violation < T(0) ? T(0) : violation;
}

template <class T>
inline T triplet_slope(Hinge hinge, T violation) {
  if (violation != violation) return violation;
  return hinge == Hinge::kSoftplus ? sigmoid(violation) : T(violation > T(0));
}

template <class T>
struct TripletValue {
  T loss, d_ap, d_an;
  bool valid;
};

template <Metric M, class S>
inline TripletValue<Compute<S>> evaluate_triplet(const Triplets<S, TripletLoss>& triplets, int64_t t) {
  using T = Compute<S>;
  const TripletLoss& p = triplets.p;
  const S *anchor = triplets.anchor(t), *positive = triplets.positive(t), *negative = triplets.negative(t);
  if (anchor == nullptr) {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    return {nan, nan, nan, false};
  }
  const T none = positive == nullptr || negative == nullptr ? nothing(anchor, p.depth) : T(0);
  const T d_ap = positive == nullptr ? none : row_distance<M>(anchor, positive, p.depth);
  const T d_an = negative == nullptr ? none : row_distance<M>(anchor, negative, p.depth);
  const bool valid = negative != nullptr && (positive != nullptr || p.zero_positive);
  return {valid ? triplet_value(p.hinge, d_ap - d_an + static_cast<T>(p.margin)) : none, d_ap, d_an, valid};
}

template <class S>
struct TripletLossKernel {
  static void run(const TripletLoss& p) {
    using T = Compute<S>;
    const Triplets<S, TripletLoss> triplets(p);
    T *loss = static_cast<T*>(p.loss), *d_ap = static_cast<T*>(p.d_ap), *d_an = static_cast<T*>(p.d_an);
    const Buffer<double> sums(chunk_count(p.count));
    const Buffer<int64_t> averaged(chunk_count(p.count));
    for_metric(p.metric, [&](auto metric) {
      for_chunks(p.count, p.threads, [&](int64_t c, int64_t begin, int64_t end) {
        double sum = 0;
        int64_t number = 0;
        for (int64_t t = begin; t < end; ++t) {
          const TripletValue<T> value = evaluate_triplet<decltype(metric)::value>(triplets, t);
          d_ap[t] = value.d_ap;
          d_an[t] = value.d_an;
          if (p.reduction == Reduction::kNone) loss[t] = value.loss;
          sum += static_cast<double>(value.loss);
          number += p.reduction == Reduction::kMean ? value.valid : !(value.loss <= T(0));
        }
        sums[c] = sum;
        averaged[c] = number;
      });
    });
    reduce(p, sums, averaged);
  }

  static void reduce(const TripletLoss& p, const Buffer<double>& sums, const Buffer<int64_t>& averaged) {
    using T = Compute<S>;
    const int64_t chunks = chunk_count(p.count), number = std::accumulate(averaged.get(), averaged.get() + chunks, int64_t(0));
    const bool average = p.reduction == Reduction::kMean || p.reduction == Reduction::kMeanNonzero;
    const double scale = average ? 1.0 / static_cast<double>(std::max<int64_t>(1, number)) : 1.0;
    *static_cast<T*>(p.scale) = static_cast<T>(scale);
    if (p.reduction == Reduction::kNone) return;
    *static_cast<T*>(p.loss) = static_cast<T>(std::accumulate(sums.get(), sums.get() + chunks, 0.0) * scale);
  }
};

void triplet_loss(const TripletLoss& p) { by_dtype<TripletLoss, TripletLossKernel>(p); }
