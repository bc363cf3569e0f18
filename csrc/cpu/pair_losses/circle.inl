// Circle: pairs weighted by how far they are from their optimum, w_p = max(0, 1 + m - s), w_n = max(0, s + m).
//
//     loss_i = softplus(P_i + N_i)        P_i = log sum_p exp u_ip, u = -gamma w_p (s - 1 + m)        N_i = log sum_n exp v_in, v = gamma
//     w_n (s - m) d / ds_ip = sigmoid(P_i + N_i) exp(u_ip - P_i) u'        d / ds_in = sigmoid(P_i + N_i) exp(v_in - N_i) v'
//
// with u' = -gamma w_p and v' = gamma w_n where the weights are constants (as published), the whole derivative otherwise. An anchor without
// positives or without negatives has loss 0: its P and N are then infinite.

template <class T>
struct Circle {
  using V = typename Simd<T>::V;
  static constexpr int kFields = 4, kComponents = 1, kSweeps = 1;  // P (first: largest exponent, sum), N (the same); then 1: sigmoid
  explicit Circle(const double* parameter)
      : margin(static_cast<T>(parameter[0])), gamma(static_cast<T>(parameter[1])), whole(parameter[2] != 0) {}
  static T start(int field) { return field == 0 || field == 2 ? -std::numeric_limits<T>::infinity() : T(0); }

  V weight(V s, bool positive) const {
    return Simd<T>::max(Simd<T>::zero(), positive ? Simd<T>::set1(1 + margin) - s : s + Simd<T>::set1(margin));
  }
  V distance(V s, bool positive) const { return positive ? Simd<T>::set1(1 - margin) - s : s - Simd<T>::set1(margin); }

  template <class Add>
  void visit(const Add& add, int, bool positive) const {
    add.log_sum(positive ? 0 : 2, [&](V s) { return Simd<T>::set1(gamma) * weight(s, positive) * distance(s, positive); });
  }

  template <class F>
  void close(F&& field, int, T positives, T negatives) const {
    const bool valid = positives > 0 && negatives > 0;
    for (int side = 0; side < 4; side += 2)
      field(side) = valid ? field(side) + std::log(field(side + 1)) : std::numeric_limits<T>::infinity();
    field(1) = valid ? sigmoid(field(0) + field(2)) : T(0);
  }

  template <class F>
  void write(F&& field, T, T* loss, T* count) const {
    *count = !(field(0) == std::numeric_limits<T>::infinity());
    *loss = *count > 0 ? softplus(field(0) + field(2)) : T(0);
  }

  template <class F>
  V slope(V s, bool positive, F&& field) const {
    const V w = weight(s, positive), d = distance(s, positive), factor = Simd<T>::set1(gamma);
    V derivative = w;
    if (whole) derivative = w > Simd<T>::zero() ? w + d : w;
    const V share = field(1) * factor * derivative * exp_lanes<T>(factor * w * d - field(positive ? 0 : 2));
    return positive ? -share : share;
  }

  T margin, gamma;
  bool whole;
};
