// The best score of each of some rows, kept lane by lane: lane l has met every candidate whose column is l modulo the lanes of a vector.
// Two vectors a row are compared and blended without a branch, so the cost is the same for any data; the lanes are folded once at the end.
template <class T>
class LaneBest {
 public:
  using L = Simd<T>;
  using Int = typename L::Int;

  explicit LaneBest(int64_t rows) : value_(rows * L::lanes), index_(rows * L::lanes) {}

  void clear(int64_t rows) {
    std::fill(value_.get(), value_.get() + rows * L::lanes, -std::numeric_limits<T>::infinity());
    std::fill(index_.get(), index_.get() + rows * L::lanes, Int(-1));
  }

  T* value(int64_t row) const { return value_.get() + row * L::lanes; }
  Int* index(int64_t row) const { return index_.get() + row * L::lanes; }

  // Calls f(score, index) with the largest score of a row and, among its equals, the lowest index; not for a row without any.
  template <class F>
  void fold(int64_t row, F&& f) const {
    const T* values = value(row);
    const Int* indices = index(row);
    T best = values[0];
    for (int lane = 1; lane < L::lanes; ++lane) best = std::max(best, values[lane]);
    Int first = std::numeric_limits<Int>::max();
    for (int lane = 0; lane < L::lanes; ++lane)
      if (values[lane] == best && indices[lane] >= 0) first = std::min(first, indices[lane]);
    if (first != std::numeric_limits<Int>::max()) f(best, first);
  }

 private:
  Buffer<T> value_;
  Buffer<Int> index_;
};

// The best of each of some rows, whole: what lanes and threads are folded into. Ties go to the lowest index.
template <class T>
struct Best {
  using Int = typename Simd<T>::Int;
  explicit Best(int64_t rows) : value(rows), index(rows) { clear(rows); }
  void clear(int64_t rows) {
    std::fill(value.get(), value.get() + rows, -std::numeric_limits<T>::infinity());
    std::fill(index.get(), index.get() + rows, Int(-1));
  }
  void merge(int64_t row, T v, Int i) {
    if (i >= 0 && (v > value[row] || (v == value[row] && i < index[row]) || index[row] < 0)) {
      value[row] = v;
      index[row] = i;
    }
  }

  Buffer<T> value;
  Buffer<Int> index;
};
