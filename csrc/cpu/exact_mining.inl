// What mining does by exact differences: the farthest row of an anchor's class, and the nearest of another for an anchor that the product
// form could not serve. Every pair of a small class is computed once; a large class passes by blocks of its anchors four members at a time.

// What decides among positives and in the exact search: larger is farther, never NaN for comparable rows.
template <Metric M>
constexpr Metric kExact = M == Metric::kEuclidean ? Metric::kSqEuclidean : M;

// Members of a class whose pairs are visited once, by one thread, and how many such classes it takes at a time; of a larger class, anchors
// that stay in the cache while all members pass by, kTogether at a time.
constexpr int64_t kSmallClass = 64, kClassChunk = 16, kAnchors = 64;
constexpr int kTogether = 4;

template <Metric M, class S>
struct Miner {
  using T = Compute<S>;
  const HardestPairs& p;
  const S *x, *ref;
  const Classes& classes;  // of ref

  int64_t own(int64_t i) const { return p.self ? i : p.self_index != nullptr ? p.self_index[i] : -1; }
  int32_t class_of(int64_t i) const { return p.self ? classes.id[i] : classes.find(p.labels[i]); }
  T distance_to(int64_t i, int64_t j) const { return row_distance<kExact<M>, S>(x + i * p.depth, ref + j * p.depth, p.depth); }

  // Keeps the first of the farthest: candidates come in ascending order.
  void offer(int64_t i, int64_t j, T d, T& farthest) const {
    if (p.positive[i] < 0 ? d != d : !(d > farthest)) return;
    p.positive[i] = j;
    farthest = d;
  }

  // Offers member[0..count) to anchors, which are rows of x.
  void offer_members(const int64_t* anchors, int64_t anchor_count, const int64_t* member, int64_t count) const {
    T farthest[kAnchors] = {};
    for (int64_t m = 0; m < anchor_count; ++m) p.positive[anchors[m]] = -1;
    for (int64_t n = 0; n < count; n += kTogether) {
      const S* rows[kTogether];
      for (int j = 0; j < kTogether; ++j) rows[j] = ref + member[std::min(n + j, count - 1)] * p.depth;
      for (int64_t m = 0; m < anchor_count; ++m) {
        T d[kTogether];
        row_distances<kExact<M>>(x + anchors[m] * p.depth, rows, p.depth, d);
        for (int64_t j = n; j < std::min(n + kTogether, count); ++j)
          if (member[j] != own(anchors[m])) offer(anchors[m], member[j], d[j - n], farthest[m]);
      }
    }
  }

  // The positives of a whole class among itself: every pair once.
  void positives_within(int64_t c) const {
    const int64_t *member = classes.member.get() + classes.start[c], count = classes.start[c + 1] - classes.start[c];
    T farthest[kSmallClass];
    for (int64_t m = 0; m < count; ++m) p.positive[member[m]] = -1;
    for (int64_t m = 0; m < count; ++m)
      for (int64_t n = m + 1; n < count; ++n) {
        const T d = distance_to(member[m], member[n]);
        offer(member[m], member[n], d, farthest[m]);
        offer(member[n], member[m], d, farthest[n]);
      }
  }

  bool small(int64_t c) const { return classes.start[c + 1] - classes.start[c] <= kSmallClass; }

  // Anchors anchors[0..count) of one class, a few at a time.
  void positives_of(const int64_t* anchors, int64_t count, int32_t c) const {
    const int64_t members = c < 0 ? 0 : classes.start[c + 1] - classes.start[c];
    const int64_t* member = classes.member.get() + (c < 0 ? 0 : classes.start[c]);
    for (int64_t m = 0; m < count; m += kAnchors) offer_members(anchors + m, std::min(kAnchors, count - m), member, members);
  }

  void positives() const {
    if (!p.self) {
      return for_chunks(p.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) positives_of(&i, 1, class_of(i));
      });
    }
    for_chunks(
        classes.count, p.threads,
        [&](int64_t, int64_t begin, int64_t end) {
          for (int64_t c = begin; c < end; ++c)
            if (small(c)) positives_within(c);
        },
        kClassChunk);
    for_chunks(
        p.rows, p.threads,
        [&](int64_t, int64_t begin, int64_t end) {  // members in the order of their classes
          for (int64_t stop; begin < end; begin = stop) {
            const int32_t c = classes.id[classes.member[begin]];
            stop = std::min(end, classes.start[c + 1]);
            if (!small(c)) positives_of(classes.member.get() + begin, stop - begin, c);
          }
        },
        kAnchors);
  }

  // The nearest row of another class by exact differences: for anchors that the product form could not serve.
  int64_t search_negative(int64_t i) const {
    const int32_t c = class_of(i);
    if (c >= 0 && classes.count == 1) return -1;
    if (holds_nan(x + i * p.depth, p.depth)) return -1;
    int64_t best = -1;
    T nearest = 0;
    for (int64_t j = 0; j < p.ref_rows; ++j) {
      if (classes.id[j] == c) continue;
      const T d = distance_to(i, j);
      if (best < 0 ? d == d : d < nearest) {
        best = j;
        nearest = d;
      }
    }
    return best;
  }

  void negatives(const Best<T>& best) const {
    for_chunks(p.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) p.negative[i] = best.index[i] >= 0 ? best.index[i] : search_negative(i);
    });
  }
};
