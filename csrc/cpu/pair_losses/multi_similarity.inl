// Multi-similarity: a soft maximum over an anchor's positives and one over its negatives.
//
//     loss_i = P_i / alpha + N_i / beta        P_i = log(1 + sum_p exp(alpha (base - s_ip)))        N_i = log(1 + sum_n exp(beta (s_in -
//     base))) d / ds_ip = -exp(alpha (base - s_ip) - P_i)        d / ds_in = exp(beta (s_in - base) - N_i)

template <class T>
struct MultiSimilarity {
  using V = typename Simd<T>::V;
  static constexpr int kFields = 4, kComponents = 1, kSweeps = 1;  // P (first: largest exponent, at least 0, sum), N (the same)
  explicit MultiSimilarity(const double* parameter)
      : alpha(static_cast<T>(parameter[0])), beta(static_cast<T>(parameter[1])), base(static_cast<T>(parameter[2])) {}
  static T start(int) { return T(0); }

  V exponent(V s, bool positive) const {
    const V from = Simd<T>::set1(base);
    return positive ? Simd<T>::set1(alpha) * (from - s) : Simd<T>::set1(beta) * (s - from);
  }

  template <class Add>
  void visit(const Add& add, int, bool positive) const {
    add.log_sum(positive ? 0 : 2, [&](V s) { return exponent(s, positive); });
  }

  template <class F>
  void close(F&& field, int, T, T) const {
    for (int side = 0; side < 4; side += 2) {
      const T top = field(side), sum = field(side + 1);
      field(side) = top > 0 ? top + std::log(sum + std::exp(-top)) : std::log1p(sum);
    }
  }

  template <class F>
  void write(F&& field, T, T* loss, T* count) const {
    *loss = field(0) / alpha + field(2) / beta;
    *count = T(1);
  }

  template <class F>
  V slope(V s, bool positive, F&& field) const {
    const V share = exp_lanes<T>(exponent(s, positive) - field(positive ? 0 : 2));
    return positive ? -share : share;
  }

  T alpha, beta, base;
};
