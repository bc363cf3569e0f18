// Contrastive: hinges of all pairs, in scores: max(0, a - s) of positives, max(0, s - b) of negatives, each side a component of its own
// with the number of its terms above 0.

template <class T>
struct Contrastive {
  using V = typename Simd<T>::V;
  static constexpr int kFields = 4, kComponents = 2, kSweeps = 1;  // sum and number of positives, of negatives
  explicit Contrastive(const double* parameter) : above(static_cast<T>(parameter[0])), below(static_cast<T>(parameter[1])) {}
  static T start(int) { return T(0); }

  V violation(V s, bool positive) const { return positive ? Simd<T>::set1(above) - s : s - Simd<T>::set1(below); }
  static V step(V violation) { return violation > Simd<T>::zero() ? Simd<T>::set1(T(1)) : Simd<T>::zero(); }

  template <class Add>
  void visit(const Add& add, int, bool positive) const {
    add.sums(positive ? 0 : 2, [&](V s, V& sum, V& count) {
      const V v = violation(s, positive);
      sum = Simd<T>::max(Simd<T>::zero(), v);
      count = step(v);
    });
  }

  template <class F>
  void close(F&&, int, T, T) const {}

  template <class F>
  void write(F&& field, T, T* losses, T* counts) const {
    for (int side = 0; side < 2; ++side) {
      losses[side] = field(2 * side);
      counts[side] = field(2 * side + 1);
    }
  }

  template <class F>
  V slope(V s, bool positive, F&&) const {
    const V active = step(violation(s, positive));
    return positive ? -active : active;
  }

  T above, below;
};
