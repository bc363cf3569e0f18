// SupCon: the mean log-probability of an anchor's P positives among all its pairs, t = s / temperature.
//
//     loss_i = L_i - sum_p t_ip / P        L_i = log sum_j exp t_ij
//     d / ds_ij = (exp(t_ij - L_i) - [j positive] / P) / temperature
//
// An anchor without positives has loss 0: its L is then infinite.

template <class T>
struct SupCon {
  using V = typename Simd<T>::V;
  static constexpr int kFields = 3, kComponents = 1, kSweeps = 1;  // L (first: largest exponent, sum, then 1 / P), sum of t_ip
  explicit SupCon(const double* parameter) : scale(static_cast<T>(1 / parameter[0])) {}
  static T start(int field) { return field == 0 ? -std::numeric_limits<T>::infinity() : T(0); }

  template <class Add>
  void visit(const Add& add, int, bool positive) const {
    const V factor = Simd<T>::set1(scale);
    add.log_sum(0, [&](V s) { return s * factor; });
    if (positive) add.sum(2, [&](V s) { return s * factor; });
  }

  template <class F>
  void close(F&& field, int, T positives, T) const {
    field(0) = positives > 0 ? field(0) + std::log(field(1)) : std::numeric_limits<T>::infinity();
    field(1) = positives > 0 ? 1 / positives : T(0);
  }

  template <class F>
  void write(F&& field, T positives, T* loss, T* count) const {
    *loss = positives > 0 ? field(0) - field(2) * field(1) : T(0);
    *count = positives > 0;
  }

  template <class F>
  V slope(V s, bool positive, F&& field) const {
    const V factor = Simd<T>::set1(scale), share = exp_lanes<T>(Simd<T>::fma(s, factor, -field(0)));
    return factor * (positive ? share - field(1) : share);
  }

  T scale;
};
