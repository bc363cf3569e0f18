// NT-Xent: each positive p of anchor i against the anchor's negatives, t = s / temperature.
//
//     loss_i = sum_p softplus(L_i - t_ip)        L_i = log sum_n exp t_in
//     d / ds_ip = -sigmoid(L_i - t_ip) / temperature        d / ds_in = (sum_p sigmoid(L_i - t_ip)) exp(t_in - L_i) / temperature

template <class T>
struct NtXent {
  using V = typename Simd<T>::V;
  static constexpr int kFields = 4, kComponents = 1, kSweeps = 2;  // L (first: largest exponent, sum), sum of losses, of sigmoids
  explicit NtXent(const double* parameter) : scale(static_cast<T>(1 / parameter[0])) {}
  static T start(int field) { return field == 0 ? -std::numeric_limits<T>::infinity() : T(0); }

  template <class Add>
  void visit(const Add& add, int sweep, bool positive) const {
    const V factor = Simd<T>::set1(scale);
    if (sweep == 0 && !positive) add.log_sum(0, [&](V s) { return s * factor; });
    if (sweep == 1 && positive) {
      const V against = add.value(0);
      add.sums(2, [&](V s, V& loss, V& slope) {
        const V gap = against - s * factor;
        loss = softplus_lanes<T>(gap);
        slope = sigmoid_lanes<T>(gap);
      });
    }
  }

  template <class F>
  void close(F&& field, int sweep, T, T) const {
    if (sweep == 0) field(0) += std::log(field(1));
  }

  template <class F>
  void write(F&& field, T positives, T* loss, T* count) const {
    *loss = field(2);
    *count = positives;
  }

  template <class F>
  V slope(V s, bool positive, F&& field) const {
    const V factor = Simd<T>::set1(scale), gap = Simd<T>::fma(s, factor, -field(0));
    return positive ? -factor * sigmoid_lanes<T>(-gap) : factor * field(3) * exp_lanes<T>(gap);
  }

  T scale;
};
