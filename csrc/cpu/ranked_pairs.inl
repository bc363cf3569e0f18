// Of each anchor the k farthest (or nearest) positives and the k nearest negatives, or those that are farther than the first of the
// positives.
//
// Anchors come strip by strip; a pass over the blocks that hold positives, then one over all, each keep the best of a row in order. Few
// scores beat the last of the kept: vectors of scores are compared with it, and only those that may are looked at one by one. Among equal
// scores the first row is taken, NaN never.

template <class T>
class RankedPairs {
  using L = Simd<T>;
  using V = typename L::V;
  static constexpr int64_t kSide = PairBlocks<T>::kSide;

 public:
  explicit RankedPairs(const PairRanking& p)
      : p_(p), blocks_(p), most_(std::max<int64_t>(1, std::max(p.positives, p.negatives))), best_(kSide * most_), limit_(kSide) {}

  void run() {
    for (int64_t first = 0; first < blocks_.rows; first += kSide) {
      const Range rows = blocks_.strip(first);
      rank(rows, true, p_.positives, p_.positive);
      for (int64_t i = rows.begin; i < rows.end; ++i) limit_[i % kSide] = limit(i);
      rank(rows, false, p_.negatives, p_.negative);
    }
  }

 private:
  // What negatives of row i are below; none are where it has no positive to be farther than.
  T limit(int64_t i) const {
    if (!p_.beyond) return std::numeric_limits<T>::quiet_NaN();
    return p_.positive[blocks_.row(i) * p_.positives] < 0 ? -std::numeric_limits<T>::infinity() : sign(true) * best_[i % kSide * most_];
  }

  T sign(bool positive) const { return positive && !p_.easy ? T(-1) : T(1); }

  void rank(Range rows, bool positives, int64_t count, int64_t* out) {
    std::fill(best_.get(), best_.get() + kSide * most_, -std::numeric_limits<T>::infinity());
    blocks_.for_strip(rows, 0, positives, [&](Range, Range columns) {
      for_chunks(
          rows.end - rows.begin, p_.threads,
          [&](int64_t, int64_t first, int64_t last) {
            for (int64_t i = rows.begin + first; i < rows.begin + last; ++i)
              blocks_.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
                if (positive == positives) visit(blocks_.at(rows, columns, i, begin), i, begin, end - begin, positive, count, out);
              });
          },
          32);
    });
  }

  void visit(const T* s, int64_t i, int64_t first, int64_t length, bool positive, int64_t count, int64_t* out) const {
    T* best = best_.get() + i % kSide * most_;
    int64_t* index = out + blocks_.row(i) * count;
    const V factor = L::set1(sign(positive)), limit = L::set1(limit_[i % kSide]);
    const bool limited = !positive && p_.beyond;
    int64_t j = first;
    for_vectors(s, length, [&](V score, int n) {
      const V key = score * factor;
      unsigned hits = ~L::greater(L::set1(best[count - 1]), key) & ((1u << n) - 1u);
      if (limited) hits &= L::greater(limit, score);
      for (; hits != 0; hits &= hits - 1) {
        const int lane = __builtin_ctz(hits);
        insert(sign(positive) * s[j - first + lane], blocks_.column(j + lane), best, index, count);
      }
      j += n;
    });
  }

  static void insert(T key, int64_t row, T* best, int64_t* index, int64_t count) {
    const auto beats = [&](int64_t t) { return key > best[t] || (key == best[t] && (index[t] < 0 || row < index[t])); };
    if (!beats(count - 1)) return;
    int64_t t = count - 1;
    for (; t > 0 && beats(t - 1); --t) {
      best[t] = best[t - 1];
      index[t] = index[t - 1];
    }
    best[t] = key;
    index[t] = row;
  }

  const PairRanking& p_;
  PairBlocks<T> blocks_;
  const int64_t most_;
  Buffer<T> best_, limit_;  // of each row of a strip
};

void ranked_pairs(const PairRanking& p) { p.dtype == Dtype::kFloat64 ? RankedPairs<double>(p).run() : RankedPairs<float>(p).run(); }
