// Every triplet of a batch: with scores s (larger is nearer) and a threshold t_p = s_ap - margin for each positive p of an anchor,
//
//     loss_a = sum_p sum_n max(0, s_an - t_p)        count_a = the number of these above 0
//     d / ds_an = the number of thresholds below s_an        d / ds_ap = -(the number of negatives above t_p)
//
// One pass over the scores gives the sum, the count and the gradient, without a look at triplets. The gradient is that of the sum of
// weight_a loss_a; its dense part is a product with the rows, as in pair_gradient.inl. The soft margin, softplus(s_an - t_p), is summed in
// the same pass over every threshold of a row, be they few or many.
//
// Few positives (at most kFew an anchor): thresholds of all anchors are kept, and each is compared with a vector of scores; a batch against
// itself visits blocks on and above the diagonal only, where a score serves both of its rows. Many: anchors come strip by strip, their
// thresholds sorted; the rank of a negative among them, by bisection, says how many it passes, and prefix sums what they amount to:
// O(log K) a negative, and kSide K numbers in memory.

constexpr int64_t kFew = 16;

template <class T>
class BatchAll : TripletBlocks<T> {
  using Base = TripletBlocks<T>;
  using Base::kSide, Base::kPitch, Base::p_, Base::margin_, Base::blocks_, Base::sums_, Base::most_, Base::gradient_, Base::for_rows,
      Base::kappa, Base::add_gradient, Base::add_scores, Base::for_mirrored, Base::for_positives;
  using typename Base::L;
  using typename Base::V;

 public:
  explicit BatchAll(const BatchAllTriplets& p) : Base(p) {}

  void run() {
    if (most_ <= kFew)
      few();
    else
      p_.hinge == Hinge::kSoftplus ? soft_strips() : many();
    this->write();
  }

 private:
  // Thresholds and the slopes of the negatives above each, by slot and row; the rows are all, or those of a strip.

  bool mirrored(Range rows, Range columns) const { return mirror_ && rows.begin != columns.begin; }

  void few() {
    mirror_ = p_.self;
    allocate(blocks_.rows);
    compare([&](bool only_positives, auto&& f) { blocks_.for_blocks(only_positives, f); });
  }

  void soft_strips() {
    allocate(kSide);
    for (int64_t first = 0; first < blocks_.rows; first += kSide) {
      const Range rows = blocks_.strip(first);
      base_ = first;
      compare([&](bool only_positives, auto&& f) { blocks_.for_strip(rows, 0, only_positives, f); });
    }
  }

  void allocate(int64_t rows) {
    thresholds_.reset(new Fields<T>(static_cast<int>(most_), rows));
    above_.reset(new Fields<T>(static_cast<int>(most_), rows));
  }

  template <class Visit>
  void compare(Visit&& visit) {
    const int64_t size = most_ * thresholds_->stride;
    std::fill((*thresholds_)(0), (*thresholds_)(0) + size, std::numeric_limits<T>::infinity());
    std::fill((*above_)(0), (*above_)(0) + size, T(0));
    visit(true, [&](Range rows, Range columns) {
      for_positives(rows, columns, [&](int64_t i, int64_t j, int64_t slot, T s) {
        *threshold(slot, i) = s - margin_;
        if (mirrored(rows, columns)) *threshold(blocks_.positives_before(j, i), j) = s - margin_;
      });
    });
    visit(false, [&](Range rows, Range columns) {
      add_scores(rows, columns, mirrored(rows, columns));
      for_rows(rows, [&](int64_t i) { few_of_row(rows, columns, i); });
      if (mirrored(rows, columns))
        for_mirrored(rows, columns, [&](int64_t j, int n, int64_t split) { few_of_lanes(rows, columns, j, n, split); });
      if (gradient_) add_gradient(rows, columns, true);
    });
    if (!gradient_) return;
    visit(true, [&](Range rows, Range columns) {
      for_rows(rows, [&](int64_t i) {
        T* k = kappa(rows, columns, i, columns.begin);
        std::fill(k, k + (columns.end - columns.begin), T(0));
      });
      for_positives(rows, columns, [&](int64_t i, int64_t j, int64_t slot, T) {
        const T of_column = mirror_ ? sums_(2)[j] * *above(blocks_.positives_before(j, i), j) : T(0);
        *kappa(rows, columns, i, j) = -(sums_(2)[i] * *above(slot, i) + of_column);
      });
      add_gradient(rows, columns, !mirror_ || mirrored(rows, columns));
    });
  }

  T* threshold(int64_t slot, int64_t i) const { return (*thresholds_)(static_cast<int>(slot)) + (i - base_); }
  T* above(int64_t slot, int64_t i) const { return (*above_)(static_cast<int>(slot)) + (i - base_); }

  // Calls f(first, an integral constant of how many, whether soft) for thresholds four at a time: as many as registers hold beside their
  // counts. Exponentials need the registers themselves.
  template <class F>
  void by_four(int64_t count, F&& f) const {
    int64_t t = 0;
    if (p_.hinge == Hinge::kSoftplus) {
      for (; t < count; ++t) f(t, std::integral_constant<int, 1>{}, std::true_type{});
      return;
    }
    for (; t + 4 <= count; t += 4) f(t, std::integral_constant<int, 4>{}, std::false_type{});
    if (count - t == 3) f(t, std::integral_constant<int, 3>{}, std::false_type{});
    if (count - t == 2) f(t, std::integral_constant<int, 2>{}, std::false_type{});
    if (count - t == 1) f(t, std::integral_constant<int, 1>{}, std::false_type{});
  }

  // Adds the losses of score - limit to `sum`, their slopes to `slopes` of each limit, and how many are above 0 to `number`; returns the
  // slopes of the scores.
  template <bool kSoft, int Q>
  static V pass(V score, const V (&limit)[Q], V& sum, V (&slopes)[Q], V& number, int n) {
    const V one = L::set1(T(1));
    V passed = L::zero();
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      const V gap = first_lanes(score - limit[q], n, -std::numeric_limits<T>::infinity());
      V loss = L::max(L::zero(), gap), slope = gap > L::zero() ? one : L::zero();
      if constexpr (kSoft) {
        const V e = exp_lanes<T>(-L::abs(gap));
        loss += log_of_one_plus_lanes<T>(e);
        slope = (gap < L::zero() ? e : one) / (one + e);
        number += loss > L::zero() ? one : L::zero();
      }
      sum += loss;
      slopes[q] += slope;
      passed += slope;
    }
    return passed;
  }

  void few_of_row(Range rows, Range columns, int64_t i) const {
    T* row = kappa(rows, columns, i, columns.begin);
    std::fill(row, row + (columns.end - columns.begin), T(0));
    const V weight = L::set1(sums_(2)[i]);
    blocks_.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
      if (positive) return;
      const T* s = blocks_.at(rows, columns, i, begin);
      T* k = row + (begin - columns.begin);
      by_four(blocks_.positives(i), [&](int64_t t, auto count, auto soft) {
        constexpr int Q = decltype(count)::value;
        V limit[Q], slopes[Q], sum = L::zero(), number = L::zero();
        for (int q = 0; q < Q; ++q) {
          limit[q] = L::set1(*threshold(t + q, i));
          slopes[q] = L::zero();
        }
        for_lanes<T>(end - begin, [&](int64_t j, int n) {
          const V passed = pass<decltype(soft)::value>(load_lanes<T>(s, j, n), limit, sum, slopes, number, n);
          store_lanes<T>(k, j, n, L::fma(passed, weight, load_lanes<T>(k, j, n)));
        });
        for (int q = 0; q < Q; ++q) {
          *above(t + q, i) += L::sum(slopes[q]);
          if (!decltype(soft)::value) number += slopes[q];
        }
        sums_(0)[i] += L::sum(sum);
        sums_(1)[i] += L::sum(number);
      });
    });
  }

  // The columns of a block above the diagonal as anchors, n from j on; its rows before `split` are negatives.
  void few_of_lanes(Range rows, Range columns, int64_t j, int n, int64_t split) const {
    const V weight = L::load(sums_(2) + j);
    const T* s = blocks_.at(rows, columns, rows.begin, j);
    T* k = kappa(rows, columns, rows.begin, j);
    by_four(most_, [&](int64_t t, auto count, auto soft) {
      constexpr int Q = decltype(count)::value;
      V limit[Q], slopes[Q], sum = L::zero(), number = L::zero();
      for (int q = 0; q < Q; ++q) {
        limit[q] = L::load(threshold(t + q, j));
        slopes[q] = L::zero();
      }
      for (int64_t r = 0; r < (split - rows.begin) * kPitch; r += kPitch) {
        const V passed = pass<decltype(soft)::value>(L::load(s + r), limit, sum, slopes, number, L::lanes);
        const V value = L::fma(passed, weight, L::load(k + r));
        n == L::lanes ? L::store(k + r, value) : L::store(k + r, value, n);
      }
      for (int q = 0; q < Q; ++q) {
        L::store(above(t + q, j), L::load(above(t + q, j)) + slopes[q], n);
        if (!decltype(soft)::value) number += slopes[q];
      }
      L::store(sums_(0) + j, L::load(sums_(0) + j) + sum, n);
      L::store(sums_(1) + j, L::load(sums_(1) + j) + number, n);
    });
  }

  // Many: for each row of a strip, sorted thresholds, their prefix sums, and how many negatives have each rank.

  void many() {
    const int64_t width = most_ + 1;
    Buffer<T> limits(kSide * width), prefix(kSide * width);
    Buffer<int32_t> ranks(kSide * width);
    for (int64_t first = 0; first < blocks_.rows; first += kSide) {
      const Range rows = blocks_.strip(first);
      const auto at = [&](int64_t i) { return (i - rows.begin) * width; };
      blocks_.for_strip(rows, 0, true, [&](Range, Range columns) {
        for_positives(rows, columns, [&](int64_t i, int64_t, int64_t slot, T s) { limits[at(i) + slot] = s - margin_; });
      });
      for_rows(rows, [&](int64_t i) { sort_thresholds(limits.get() + at(i), prefix.get() + at(i), ranks.get() + at(i), i); });
      blocks_.for_strip(rows, 0, false, [&](Range, Range columns) {
        add_scores(rows, columns, false);
        for_rows(rows, [&](int64_t i) { many_of_row(rows, columns, i, limits.get() + at(i), prefix.get() + at(i), ranks.get() + at(i)); });
      });
      for_rows(rows, [&](int64_t i) { count_above(ranks.get() + at(i), i); });
      if (!gradient_) continue;
      blocks_.for_strip(rows, 0, false, [&](Range, Range columns) {
        for_rows(rows, [&](int64_t i) { weigh_row(rows, columns, i, limits.get() + at(i), ranks.get() + at(i)); });
        add_gradient(rows, columns, true);
      });
    }
  }

  // Prefix sums are of the thresholds' distances from the lowest: scores close together then lose no digits. NaN thresholds go last, where
  // no score passes them, and make the sum over any negatives NaN.
  void sort_thresholds(T* limits, T* prefix, int32_t* ranks, int64_t i) const {
    const int64_t count = blocks_.positives(i);
    std::sort(limits, limits + count, [](T a, T b) { return a < b || (b != b && a == a); });
    std::fill(ranks, ranks + count + 1, 0);
    prefix[0] = 0;
    const T from = origin(limits, count);
    for (int64_t t = 0; t < count; ++t) prefix[t + 1] = prefix[t] + (limits[t] - from);
    if (count > 0 && std::isnan(limits[count - 1]) && blocks_.negatives(i) > 0) sums_(0)[i] = limits[count - 1];
  }

  static T origin(const T* limits, int64_t count) { return count > 0 && std::isfinite(limits[0]) ? limits[0] : T(0); }

  // The number of thresholds below a score.
  static int64_t rank(const T* limits, int64_t count, T score) {
    const T* from = limits;
    while (count > 0) {
      const int64_t half = (count + 1) / 2;
      const bool below = from[half - 1] < score;
      from = below ? from + half : from;
      count = below ? count - half : half - 1;
    }
    return from - limits;
  }

  void many_of_row(Range rows, Range columns, int64_t i, const T* limits, const T* prefix, int32_t* ranks) const {
    const T from = origin(limits, blocks_.positives(i));
    T sum = 0;
    blocks_.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
      const T* s = blocks_.at(rows, columns, i, begin);
      for (int64_t j = 0; !positive && j < end - begin; ++j) {
        const int64_t passed = rank(limits, blocks_.positives(i), s[j]);
        ++ranks[passed];
        if (s[j] != -std::numeric_limits<T>::infinity()) sum += static_cast<T>(passed) * (s[j] - from) - prefix[passed];
      }
    });
    sums_(0)[i] += sum;
  }

  // ranks[t] becomes the number of negatives above threshold t.
  void count_above(int32_t* ranks, int64_t i) const {
    int32_t above = 0;
    int64_t triplets = 0;
    for (int64_t t = blocks_.positives(i); t > 0; --t) {
      above += ranks[t];
      triplets += above;
      ranks[t] = above;
    }
    for (int64_t t = 0; t < blocks_.positives(i); ++t) ranks[t] = ranks[t + 1];
    sums_(1)[i] = static_cast<T>(triplets);
  }

  void weigh_row(Range rows, Range columns, int64_t i, const T* limits, const int32_t* ranks) const {
    const int64_t count = blocks_.positives(i);
    T* row = kappa(rows, columns, i, columns.begin);
    std::fill(row, row + (columns.end - columns.begin), T(0));
    blocks_.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
      const T* s = blocks_.at(rows, columns, i, begin);
      T* k = row + (begin - columns.begin);
      for (int64_t j = 0; j < end - begin; ++j) {
        const int64_t passed = rank(limits, count, positive ? s[j] - margin_ : s[j]);
        k[j] = sums_(2)[i] * (positive ? (passed < count ? -static_cast<T>(ranks[passed]) : T(0)) : static_cast<T>(passed));
      }
    });
  }

  bool mirror_ = false;  // whether a block serves its columns as anchors too
  int64_t base_ = 0;
  std::unique_ptr<Fields<T>> thresholds_, above_;
};

void batch_all(const BatchAllTriplets& p) { p.dtype == Dtype::kFloat64 ? BatchAll<double>(p).run() : BatchAll<float>(p).run(); }
