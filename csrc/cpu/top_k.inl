// The k best scores of rows, with their columns.

// Results: any order of candidates; in order of score, then of index. Index -1 where there are fewer than k.
template <class T>
struct TopK {
  TopK(int64_t rows, int64_t k) : k(k), score(rows * k), index(rows * k) {}
  int64_t k;
  Buffer<T> score;
  Buffer<int64_t> index;

  void clear(int64_t rows) {
    std::fill(score.get(), score.get() + rows * k, -std::numeric_limits<T>::infinity());
    std::fill(index.get(), index.get() + rows * k, int64_t(-1));
  }
  bool full(int64_t row) const { return index[row * k + k - 1] >= 0; }

  // A row that is not full takes anything.
  void insert(int64_t row, T s, int64_t j) {
    T* scores = score.get() + row * k;
    int64_t* indices = index.get() + row * k;
    const auto before = [&](int64_t at) { return indices[at] < 0 || scores[at] < s || (scores[at] == s && indices[at] > j); };
    int64_t at = k;
    for (; at > 0 && before(at - 1); --at) {
      if (at == k) continue;
      scores[at] = scores[at - 1];
      indices[at] = indices[at - 1];
    }
    if (at == k) return;
    scores[at] = s;
    indices[at] = j;
  }
};

// While a task runs: candidates of a row come in ascending order of their columns, so a strict compare keeps the lowest. Up to a vector's
// lanes the list is one register and an insertion has no branch: sorted scores t and a new s give max(t[i], min(t[i - 1], s)).
template <class T>
class RunningTopK {
 public:
  using L = Simd<T>;
  using Int = typename L::Int;

  RunningTopK(int64_t rows, int64_t k) : k_(k), stride_(std::max<int64_t>(k, L::lanes)), score_(rows * stride_), index_(rows * stride_) {}

  void clear(int64_t rows) {
    std::fill(score_.get(), score_.get() + rows * stride_, -std::numeric_limits<T>::infinity());
    std::fill(index_.get(), index_.get() + rows * stride_, Int(-1));
  }

  T threshold(int64_t row) const { return score_[row * stride_ + k_ - 1]; }

  // The lanes of `bits`, scores above the threshold of the row; lane 0 is column `first`.
  void push(int64_t row, typename L::V scores, unsigned bits, Int first) {
    alignas(64) T value[L::lanes];
    L::store(value, scores);
    T* score = score_.get() + row * stride_;
    Int* index = index_.get() + row * stride_;
    if (k_ > L::lanes) {
      for (; bits != 0; bits &= bits - 1) insert(score, index, value[__builtin_ctz(bits)], first + __builtin_ctz(bits));
      return;
    }
    auto top = L::load(score);
    auto column = L::load(index);
    for (; bits != 0; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      L::insert_sorted(L::set1(value[lane]), L::set1(static_cast<Int>(first + lane)), top, column);
    }
    L::store(score, top);
    L::store(index, column);
  }

  // Calls f(score, column) for what a row has, best first.
  template <class F>
  void each(int64_t row, F&& f) const {
    for (int64_t at = row * stride_; at < row * stride_ + k_ && index_[at] >= 0; ++at) f(score_[at], index_[at]);
  }

 private:
  void insert(T* score, Int* index, T s, Int j) const {
    if (!(s > score[k_ - 1])) return;
    int64_t at = k_ - 1;
    for (; at > 0 && score[at - 1] < s; --at) {
      score[at] = score[at - 1];
      index[at] = index[at - 1];
    }
    score[at] = s;
    index[at] = j;
  }

  int64_t k_, stride_;
  Buffer<T> score_;
  Buffer<Int> index_;
};
