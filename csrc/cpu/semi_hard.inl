// Semi-hard triplets: every anchor a with every positive p, and of its negatives the nearest that is farther than p,
//
//     n(a, p) = argmax { s_an : s_an < s_ap }, and where there is none argmin s_an;    loss_a = sum_p hinge(s_an - s_ap + margin)
//
// Anchors come strip by strip. The scores of a strip's positives are sorted; a pass over all scores keeps the best negative below each:
// with few positives by comparing vectors of scores with all of them (records only are looked at one by one), with many by bisection, a
// negative being a candidate for the lowest positive above it and, once all are seen, for those above that. Two coefficients a triplet are
// not 0: few are added one by one, many as dense blocks. O(N^2 (D + log K)) time, O(N D + block K) memory. Among equal scores the first row
// is taken; NaN is never taken.

template <class T>
class SemiHard : TripletBlocks<T> {
  using Base = TripletBlocks<T>;
  using Base::kSide, Base::p_, Base::margin_, Base::blocks_, Base::sums_, Base::most_, Base::gradient_, Base::for_rows, Base::kappa,
      Base::for_positives, Base::for_positives_of;
  using typename Base::L;
  using typename Base::V;
  using Coefficient = typename PairGradient<T>::Coefficient;

 public:
  explicit SemiHard(const BatchAllTriplets& p)
      : Base(p),
        width_(most_ + 1),
        scores_(kSide * width_),
        limits_(kSide * width_),
        best_(kSide * width_),
        chosen_(kSide * width_),
        coefficients_(gradient_ ? kSide * 2 * width_ : 0) {}

  void run() {
    for (int64_t first = 0; first < blocks_.rows; first += kSide) {
      const Range rows = blocks_.strip(first);
      blocks_.for_strip(rows, 0, true, [&](Range, Range columns) {
        for_positives(rows, columns, [&](int64_t i, int64_t, int64_t slot, T s) { scores_[at(i) + slot] = s; });
      });
      for_rows(rows, [&](int64_t i) { prepare(i); });
      blocks_.for_strip(rows, 0, false, [&](Range, Range columns) {
        for_rows(rows, [&](int64_t i) { most_ <= kFew ? search_few(rows, columns, i) : search_many(rows, columns, i); });
      });
      for_rows(rows, [&](int64_t i) { settle(i); });
      if (gradient_) most_ <= kFew ? add_few(rows) : add_many(rows);
    }
    this->write();
  }

 private:
  int64_t at(int64_t i) const { return i % kSide * width_; }

  // Positives, sorted, with no negative yet; the last place is for the farthest of all negatives.
  void prepare(int64_t i) const {
    const int64_t count = blocks_.positives(i);
    T* limits = limits_.get() + at(i);
    std::copy(scores_.get() + at(i), scores_.get() + at(i) + count, limits);
    std::sort(limits, limits + count, [](T a, T b) { return a < b || (b != b && a == a); });
    std::fill(best_.get() + at(i), best_.get() + at(i) + count, -std::numeric_limits<T>::infinity());
    best_[at(i) + count] = std::numeric_limits<T>::infinity();
    std::fill(chosen_.get() + at(i), chosen_.get() + at(i) + count + 1, int64_t(-1));
    if (gradient_) std::fill(coefficients_.get() + 2 * at(i), coefficients_.get() + 2 * (at(i) + width_), Coefficient{});
  }

  bool before(int64_t j, int64_t other) const { return other >= 0 && blocks_.column(j) < blocks_.column(other); }

  void offer_nearer(int64_t place, T s, int64_t j) const {
    if (!(s > best_[place] || (s == best_[place] && before(j, chosen_[place])))) return;
    best_[place] = s;
    chosen_[place] = j;
  }

  void offer_farther(int64_t place, T s, int64_t j) const {
    if (!(s < best_[place] || (s == best_[place] && (chosen_[place] < 0 || before(j, chosen_[place]))))) return;
    best_[place] = s;
    chosen_[place] = j;
  }

  template <class F>
  void for_negatives(Range rows, Range columns, int64_t i, F&& f) const {
    if (blocks_.positives(i) == 0) return;
    blocks_.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
      if (!positive) f(blocks_.at(rows, columns, i, begin), begin, end - begin);
    });
  }

  void search_few(Range rows, Range columns, int64_t i) const {
    const int64_t count = blocks_.positives(i);
    const T *limits = limits_.get() + at(i), *best = best_.get() + at(i);
    for_negatives(rows, columns, i, [&](const T* s, int64_t first, int64_t length) {
      for_vectors(s, length, [&, j = first](V v, int n) mutable {
        unsigned records = ~L::greater(v, L::set1(best[count]));
        for (int64_t t = 0; t < count; ++t) records |= L::greater(L::set1(limits[t]), v) & ~L::greater(L::set1(best[t]), v);
        for (records &= (1u << n) - 1u; records != 0; records &= records - 1) {
          const int lane = __builtin_ctz(records);
          const T score = s[j - first + lane];
          for (int64_t t = 0; t < count; ++t)
            if (score < limits[t]) offer_nearer(at(i) + t, score, j + lane);
          offer_farther(at(i) + count, score, j + lane);
        }
        j += n;
      });
    });
  }

  void search_many(Range rows, Range columns, int64_t i) const {
    const int64_t count = blocks_.positives(i);
    const T* limits = limits_.get() + at(i);
    for_negatives(rows, columns, i, [&](const T* s, int64_t first, int64_t length) {
      for (int64_t j = 0; j < length; ++j) {
        if (s[j] != s[j]) continue;
        const int64_t t = std::upper_bound(limits, limits + count, s[j], [](T a, T b) { return a < b || b != b; }) - limits;
        if (t < count && limits[t] == limits[t]) offer_nearer(at(i) + t, s[j], first + j);
        offer_farther(at(i) + count, s[j], first + j);
      }
    });
  }

  // The negative of each positive, and what the triplets come to: best_ becomes the violation's slope, weighted.
  void settle(int64_t i) const {
    const int64_t count = blocks_.positives(i);
    if (blocks_.negatives(i) == 0) return std::fill(best_.get() + at(i), best_.get() + at(i) + count, T(0));
    const T *limits = limits_.get() + at(i), nan = std::numeric_limits<T>::quiet_NaN();
    T* best = best_.get() + at(i);
    int64_t* chosen = chosen_.get() + at(i);
    for (int64_t t = 1; t < count; ++t)
      if (chosen[t - 1] >= 0) offer_nearer(at(i) + t, best[t - 1], chosen[t - 1]);
    T loss = 0, active = 0, near = 0, far = 0;
    for (int64_t t = 0; t < count; ++t) {
      const bool found = chosen[t] >= 0 && limits[t] == limits[t];
      if (!found) chosen[t] = chosen[count];
      const T score = chosen[t] < 0 ? nan : found ? best[t] : best[count], violation = score - limits[t] + margin_;
      const T value = triplet_value(p_.hinge, violation), slope = sums_(2)[i] * triplet_slope(p_.hinge, violation);
      loss += value;
      active += T(value > T(0));
      near += limits[t];
      far += score;
      best[t] = slope;
      if (!gradient_) continue;
      coefficients_[2 * (at(i) + t)] = {i, chosen[t], chosen[t] < 0 ? T(0) : of_score(slope, score)};
    }
    sums_(0)[i] = loss;
    sums_(1)[i] = active;
    sums_(3)[i] = near;
    sums_(4)[i] = far;
  }

  T of_score(T slope, T score) const {
    return L::sum(first_lanes<T>(through_metric<T>(p_.metric, L::set1(slope), L::set1(score)), 1, T(0)));
  }

  // The triplet, among the sorted ones, of column j of the class of row i.
  int64_t triplet(int64_t i, T score) const {
    const T* limits = limits_.get() + at(i);
    const int64_t count = blocks_.positives(i);
    if (score != score) return count - 1;
    return std::lower_bound(limits, limits + count, score, [](T a, T b) { return a < b; }) - limits;
  }

  // f(j, slot, kappa) for the positives of row i.
  template <class F>
  void for_pulls(int64_t i, Range columns, F&& f) const {
    for_positives_of(i, columns, [&](int64_t j, int64_t slot) {
      const T score = scores_[at(i) + slot];
      f(j, slot, of_score(-best_[at(i) + triplet(i, score)], score));
    });
  }

  void add_few(Range rows) const {
    for_rows(rows, [&](int64_t i) {
      Coefficient* item = coefficients_.get() + 2 * at(i);
      for_pulls(i, {0, blocks_.columns}, [&](int64_t j, int64_t slot, T value) { item[2 * slot + 1] = {i, j, value}; });
    });
    gradient_->add_few(coefficients_.get(), (rows.end - rows.begin) * 2 * width_);
  }

  void add_many(Range rows) const {
    for (int64_t j = 0; j < blocks_.columns; j += kSide) {
      const Range columns = {j, std::min(blocks_.columns, j + kSide)};
      for_rows(rows, [&](int64_t i) {
        T* k = kappa(rows, columns, i, columns.begin);
        std::fill(k, k + (columns.end - columns.begin), T(0));
        if (blocks_.negatives(i) == 0) return;
        for_pulls(i, columns, [&](int64_t column, int64_t, T value) { k[column - columns.begin] = value; });
        for (int64_t t = 0; t < blocks_.positives(i); ++t) {
          const Coefficient& push = coefficients_[2 * (at(i) + t)];
          if (push.j >= columns.begin && push.j < columns.end) k[push.j - columns.begin] += push.kappa;
        }
      });
      gradient_->add(kappa(rows, columns, rows.begin, columns.begin), rows, columns, true);
    }
  }

  const int64_t width_;
  Buffer<T> scores_, limits_, best_;  // of each row of a strip: positives by slot, positives sorted, the negative's score of each
  Buffer<int64_t> chosen_;            // and its column
  Buffer<Coefficient> coefficients_;
};

void semi_hard(const BatchAllTriplets& p) { p.dtype == Dtype::kFloat64 ? SemiHard<double>(p).run() : SemiHard<float>(p).run(); }
