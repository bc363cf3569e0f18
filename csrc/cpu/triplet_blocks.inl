// What losses over the triplets of a batch share: the blocks of all pairs, what an anchor's triplets add up to, and the gradient.
//
// A rule visits scores by the blocks of PairBlocks, adds to sums_(0) and sums_(1) of each anchor, and gives the coefficients d loss / d
// score: densely, a block at a time by kappa() and add_gradient, or one by one where few of them are not 0.

template <class T>
class TripletBlocks {
 protected:
  using L = Simd<T>;
  using V = typename L::V;
  static constexpr int64_t kSide = PairBlocks<T>::kSide, kPitch = PairBlocks<T>::kPitch;

  explicit TripletBlocks(const BatchAllTriplets& p)
      : p_(p), margin_(static_cast<T>(p.parameter[0])), blocks_(p), sums_(5, blocks_.rows), kappa_(kSide * kPitch) {
    if (p.grad_x != nullptr) gradient_.reset(new PairGradient<T>(blocks_));
    std::memset(kappa_.get(), 0, static_cast<std::size_t>(kSide * kPitch) * sizeof(T));
    std::fill(sums_(0), sums_(0) + 5 * sums_.stride, T(0));
    const T* weight = static_cast<const T*>(p.weight);
    for (int64_t i = 0; i < blocks_.rows; ++i) sums_(2)[i] = weight != nullptr ? weight[blocks_.row(i)] : T(1);
    for (int64_t i = 0; i < blocks_.rows; ++i) most_ = std::max(most_, blocks_.positives(i));
  }

  void write() const {
    for (int64_t i = 0; i < blocks_.rows; ++i) {
      const bool any = blocks_.positives(i) > 0 && blocks_.negatives(i) > 0;  // scores of no triplet may be NaN
      static_cast<T*>(p_.losses)[blocks_.row(i)] = any ? sums_(0)[i] : T(0);
      static_cast<T*>(p_.counts)[blocks_.row(i)] = any ? sums_(1)[i] : T(0);
      for (int kind = 0; kind < 2; ++kind) static_cast<T*>(p_.sums)[kind * p_.rows + blocks_.row(i)] = sums_(3 + kind)[i];
    }
    if (gradient_) gradient_->write(p_.grad_x, p_.grad_ref);
  }

  template <class F>
  void for_rows(Range rows, F&& f) const {
    for_chunks(
        rows.end - rows.begin, p_.threads,
        [&](int64_t, int64_t first, int64_t last) {
          for (int64_t i = rows.begin + first; i < rows.begin + last; ++i) f(i);
        },
        32);
  }

  // The scores of a block, by rows and, where they serve both, by columns, added to sums_(3) and sums_(4).
  void add_scores(Range rows, Range columns, bool mirrored) const {
    for_rows(rows, [&](int64_t i) {
      blocks_.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
        const T* s = blocks_.at(rows, columns, i, begin);
        sums_(positive ? 3 : 4)[i] += sum_over<T>(end - begin, [&](int64_t k, int n, V sum) { return sum + load_lanes<T>(s, k, n); });
      });
    });
    if (mirrored)
      for_mirrored(rows, columns, [&](int64_t j, int n, int64_t split) {
        const T* s = blocks_.at(rows, columns, rows.begin, j);
        V negatives = L::zero(), positives = L::zero();
        for (int64_t i = rows.begin; i < split; ++i, s += kPitch) negatives += L::load(s);
        for (int64_t i = split; i < rows.end; ++i, s += kPitch) positives += L::load(s);
        L::store(sums_(3) + j, L::load(sums_(3) + j) + positives, n);
        L::store(sums_(4) + j, L::load(sums_(4) + j) + negatives, n);
      });
  }

  // f(j, n, split) for the columns of a block above the diagonal as anchors, n at a time: rows from `split` on are their positives.
  template <class F>
  void for_mirrored(Range rows, Range columns, F&& f) const {
    int64_t first_positive, last_positive;
    blocks_.shared_class(rows, columns, first_positive, last_positive);
    const auto strip = [&](int64_t begin, int64_t end, int64_t split) {
      for_chunks(
          end - begin, p_.threads, [&](int64_t, int64_t first, int64_t last) { f(begin + first, static_cast<int>(last - first), split); },
          L::lanes);
    };
    strip(columns.begin, last_positive, first_positive);
    strip(last_positive, columns.end, rows.end);
  }

  T* kappa(Range rows, Range columns, int64_t i, int64_t j) const { return kappa_.get() + PairBlocks<T>::offset(rows, columns, i, j); }

  void add_gradient(Range rows, Range columns, bool both) {
    if (blocks_.euclidean)
      for_rows(rows, [&](int64_t i) {
        const T* s = blocks_.at(rows, columns, i, columns.begin);
        T* k = kappa(rows, columns, i, columns.begin);
        for_lanes<T>(columns.end - columns.begin, [&](int64_t j, int n) {
          store_lanes<T>(k, j, n, through_metric<T>(p_.metric, load_lanes<T>(k, j, n), load_lanes<T>(s, j, n)));
        });
      });
    gradient_->add(kappa_.get(), rows, columns, both);
  }

  // f(j, slot) for the positives of row i within a range of columns; slots number all of them.
  template <class F>
  void for_positives_of(int64_t i, Range columns, F&& f) const {
    int64_t slot = blocks_.positives_before(i, columns.begin);
    blocks_.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
      for (int64_t j = begin; positive && j < end; ++j) f(j, slot++);
    });
  }

  // f(i, j, slot, score) for every positive of a block, one row after the other.
  template <class F>
  void for_positives(Range rows, Range columns, F&& f) const {
    for (int64_t i = rows.begin; i < rows.end; ++i)
      for_positives_of(i, columns, [&](int64_t j, int64_t slot) { f(i, j, slot, *blocks_.at(rows, columns, i, j)); });
  }

  const BatchAllTriplets& p_;
  const T margin_;
  PairBlocks<T> blocks_;
  Fields<T> sums_;  // loss, count, weight, scores of positives, of negatives
  Buffer<T> kappa_;
  int64_t most_ = 0;  // positives of an anchor
  std::unique_ptr<PairGradient<T>> gradient_;
};
