// Every triplet of a batch: with scores s (larger is nearer) and a threshold t_p = s_ap - margin for each positive p of an anchor,
//
//     loss_a = sum_p sum_n max(0, s_an - t_p)        count_a = the number of these above 0
//     d / ds_an = the number of thresholds below s_an        d / ds_ap = -(the number of negatives above t_p)
//
// One pass over the scores gives the sum, the count and the gradient, without a look at triplets. The gradient is that of the sum of
// weight_a loss_a; its dense part is a product with the rows, as in pair_gradient.inl.
//
// Few positives (at most kFew an anchor): thresholds of all anchors are kept, and each is compared with a vector of scores; a batch against
// itself visits blocks on and above the diagonal only, where a score serves both of its rows. Many: anchors come strip by strip, their
// thresholds sorted; the rank of a negative among them, by bisection, says how many it passes, and prefix sums what they amount to:
// O(log K) a negative, and kSide K numbers in memory.

constexpr int64_t kFew = 16;

template <class T>
class BatchAll {
  using L = Simd<T>;
  using V = typename L::V;
  static constexpr int64_t kSide = PairBlocks<T>::kSide, kPitch = PairBlocks<T>::kPitch;

 public:
  explicit BatchAll(const BatchAllTriplets& p)
      : p_(p), margin_(static_cast<T>(p.parameter[0])), blocks_(p), sums_(3, p.rows), kappa_(kSide * kPitch) {
    if (p.grad_x != nullptr) gradient_.reset(new PairGradient<T>(blocks_));
    std::memset(kappa_.get(), 0, static_cast<std::size_t>(kSide * kPitch) * sizeof(T));
    std::fill(sums_(0), sums_(0) + 2 * sums_.stride, T(0));
    const T* weight = static_cast<const T*>(p.weight);
    for (int64_t i = 0; i < p.rows; ++i) sums_(2)[i] = weight != nullptr ? weight[blocks_.row(i)] : T(1);
    for (int64_t i = 0; i < p.rows; ++i) most_ = std::max(most_, blocks_.positives(i));
  }

  void run() {
    most_ <= kFew ? few() : many();
    for (int64_t i = 0; i < p_.rows; ++i) {
      static_cast<T*>(p_.losses)[blocks_.row(i)] = sums_(0)[i];
      static_cast<T*>(p_.counts)[blocks_.row(i)] = sums_(1)[i];
    }
    if (gradient_) gradient_->write(p_.grad_x, p_.grad_ref);
  }

 private:
  // Which of the thresholds of row i belongs to column j of its class.
  int64_t slot(int64_t i, int64_t j) const {
    const int64_t own = blocks_.own[i];
    return j - blocks_.begin[i] - (own >= blocks_.begin[i] && own < j);
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

  // Few: thresholds and how many negatives are above each, by slot and row.

  bool mirrored(Range rows, Range columns) const { return p_.self && rows.begin != columns.begin; }

  void few() {
    thresholds_.reset(new Fields<T>(static_cast<int>(most_), p_.rows));
    above_.reset(new Fields<T>(static_cast<int>(most_), p_.rows));
    const int64_t size = most_ * thresholds_->stride;
    std::fill((*thresholds_)(0), (*thresholds_)(0) + size, std::numeric_limits<T>::infinity());
    std::fill((*above_)(0), (*above_)(0) + size, T(0));
    blocks_.for_blocks(true, [&](Range rows, Range columns) {
      for_positives(rows, columns, [&](int64_t i, int64_t j, T* s) {
        threshold(i, j) = *s - margin_;
        if (mirrored(rows, columns)) threshold(j, i) = *s - margin_;
      });
    });
    blocks_.for_blocks(false, [&](Range rows, Range columns) {
      for_rows(rows, [&](int64_t i) { few_of_row(rows, columns, i); });
      if (mirrored(rows, columns)) few_of_columns(rows, columns);
      if (gradient_) add_gradient(rows, columns, true);
    });
    if (!gradient_) return;
    blocks_.for_blocks(true, [&](Range rows, Range columns) {
      for_rows(rows, [&](int64_t i) {
        T* k = kappa(rows, columns, i, columns.begin);
        std::fill(k, k + (columns.end - columns.begin), T(0));
      });
      for_positives(rows, columns, [&](int64_t i, int64_t j, T*) {
        const T of_column = p_.self ? sums_(2)[j] * (*above_)(static_cast<int>(slot(j, i)))[j] : T(0);
        *kappa(rows, columns, i, j) = -(sums_(2)[i] * (*above_)(static_cast<int>(slot(i, j)))[i] + of_column);
      });
      add_gradient(rows, columns, !p_.self || mirrored(rows, columns));
    });
  }

  T& threshold(int64_t i, int64_t j) const { return (*thresholds_)(static_cast<int>(slot(i, j)))[i]; }

  // f(i, j, score) for every positive of a block, one row after the other.
  template <class F>
  void for_positives(Range rows, Range columns, F&& f) const {
    for (int64_t i = rows.begin; i < rows.end; ++i)
      blocks_.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
        for (int64_t j = begin; positive && j < end; ++j) f(i, j, blocks_.at(rows, columns, i, j));
      });
  }

  // Calls f(first, an integral constant of how many) for thresholds four at a time: as many as registers hold beside their counts.
  template <class F>
  static void by_four(int64_t count, F&& f) {
    int64_t t = 0;
    for (; t + 4 <= count; t += 4) f(static_cast<int>(t), std::integral_constant<int, 4>{});
    if (count - t == 3) f(static_cast<int>(t), std::integral_constant<int, 3>{});
    if (count - t == 2) f(static_cast<int>(t), std::integral_constant<int, 2>{});
    if (count - t == 1) f(static_cast<int>(t), std::integral_constant<int, 1>{});
  }

  // Adds to sum and above what score - limit gives for each limit; returns how many limits each score passes.
  template <int Q>
  static V pass(V score, const V (&limit)[Q], V& sum, V (&above)[Q], int n) {
    V passed = L::zero();
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      const V gap = first_lanes(score - limit[q], n, T(0)), one = gap > L::zero() ? L::set1(T(1)) : L::zero();
      sum += L::max(L::zero(), gap);
      above[q] += one;
      passed += one;
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
      by_four(blocks_.positives(i), [&](int t, auto count) {
        constexpr int Q = decltype(count)::value;
        V limit[Q], above[Q], sum = L::zero(), number = L::zero();
        for (int q = 0; q < Q; ++q) {
          limit[q] = L::set1((*thresholds_)(t + q)[i]);
          above[q] = L::zero();
        }
        for_lanes<T>(end - begin, [&](int64_t j, int n) {
          const V passed = pass<Q>(load_lanes<T>(s, j, n), limit, sum, above, n);
          store_lanes<T>(k, j, n, L::fma(passed, weight, load_lanes<T>(k, j, n)));
        });
        for (int q = 0; q < Q; ++q) {
          (*above_)(t + q)[i] += L::sum(above[q]);
          number += above[q];
        }
        sums_(0)[i] += L::sum(sum);
        sums_(1)[i] += L::sum(number);
      });
    });
  }

  // The columns of a block above the diagonal as anchors; its rows from `first_positive` on are positives of columns before
  // `last_positive`.
  void few_of_columns(Range rows, Range columns) const {
    int64_t first_positive, last_positive;
    blocks_.shared_class(rows, columns, first_positive, last_positive);
    const auto strip = [&](int64_t begin, int64_t end, int64_t stop) {
      for_chunks(
          end - begin, p_.threads,
          [&](int64_t, int64_t first, int64_t last) { few_of_lanes(rows, columns, begin + first, static_cast<int>(last - first), stop); },
          L::lanes);
    };
    strip(columns.begin, last_positive, first_positive);
    strip(last_positive, columns.end, rows.end);
  }

  void few_of_lanes(Range rows, Range columns, int64_t j, int n, int64_t stop) const {
    const V weight = L::load(sums_(2) + j);
    const T* s = blocks_.at(rows, columns, rows.begin, j);
    T* k = kappa(rows, columns, rows.begin, j);
    by_four(most_, [&](int t, auto count) {
      constexpr int Q = decltype(count)::value;
      V limit[Q], above[Q], sum = L::zero(), number = L::zero();
      for (int q = 0; q < Q; ++q) {
        limit[q] = L::load((*thresholds_)(t + q) + j);
        above[q] = L::zero();
      }
      for (int64_t r = 0; r < (stop - rows.begin) * kPitch; r += kPitch) {
        const V value = L::fma(pass<Q>(L::load(s + r), limit, sum, above, L::lanes), weight, L::load(k + r));
        n == L::lanes ? L::store(k + r, value) : L::store(k + r, value, n);
      }
      for (int q = 0; q < Q; ++q) {
        L::store((*above_)(t + q) + j, L::load((*above_)(t + q) + j) + above[q], n);
        number += above[q];
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
    for (int64_t first = 0; first < p_.rows; first += kSide) {
      const Range rows = blocks_.strip(first);
      const auto at = [&](int64_t i) { return (i - rows.begin) * width; };
      blocks_.for_strip(rows, 0, true, [&](Range, Range columns) {
        for_positives(rows, columns, [&](int64_t i, int64_t j, T* s) { limits[at(i) + slot(i, j)] = *s - margin_; });
      });
      for_rows(rows, [&](int64_t i) { sort_thresholds(limits.get() + at(i), prefix.get() + at(i), ranks.get() + at(i), i); });
      blocks_.for_strip(rows, 0, false, [&](Range, Range columns) {
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

  const BatchAllTriplets& p_;
  const T margin_;
  PairBlocks<T> blocks_;
  Fields<T> sums_;  // loss, count, weight
  Buffer<T> kappa_;
  int64_t most_ = 0;  // positives of an anchor
  std::unique_ptr<PairGradient<T>> gradient_;
  std::unique_ptr<Fields<T>> thresholds_, above_;
};

void batch_all(const BatchAllTriplets& p) { p.dtype == Dtype::kFloat64 ? BatchAll<double>(p).run() : BatchAll<float>(p).run(); }
