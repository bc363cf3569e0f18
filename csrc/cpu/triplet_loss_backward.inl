// The gradient of chosen triplets, by row index or by rows.
//
// By index every triplet adds coefficient * direction(own, other) to its anchor (twice), its positive and its negative. A counting sort
// groups these contributions by the row they go to, O(triplets + rows), and each row is then written once, its sum in registers: no
// atomics, and 3 instructions a vector of a contribution (load, subtract, fma). A row with more than kContributions of them is summed in
// pieces of that length, which threads share and which are added in order: the same bits on any number of threads, and a hub costs what any
// other row costs (N = 4096, D = 128 on one Zen 4 core: 0.21 ms, hub 0.20). Limit: reading 4 rows a triplet from the cache that holds them.

constexpr int64_t kContributions = 256;

// What multiplies the direction from the anchor to its positive and to its negative.
template <class T>
struct Coefficients {
  T positive, negative;
};

template <Metric M, class T>
inline Coefficients<T> triplet_coefficients(const TripletLossBackward& p, int64_t t, bool has_positive, bool has_negative) {
  const T d_ap = static_cast<const T*>(p.d_ap)[t], d_an = static_cast<const T*>(p.d_an)[t];
  const T slope = static_cast<const T*>(p.grad)[p.one_grad ? 0 : t] * triplet_slope(p.hinge, d_ap - d_an + static_cast<T>(p.margin));
  if (slope != slope) return {slope, slope};
  if (!has_negative || !(has_positive || p.zero_positive)) return {T(0), T(0)};
  return {has_positive ? distance_factor<M>(slope, d_ap) : T(0), distance_factor<M>(-slope, d_an)};
}

// coefficient * direction(own, *other) is added to the gradient of the row that owns the contribution.
template <class S>
struct Contribution {
  const S* other;
  Compute<S> coefficient;
};

// The contributions of each row of x (as anchor), of the table (as positive or negative), or of both: those of row r are
// item[start[r]] .. item[start[r + 1] - 1], in the order of their triplets.
template <class S>
class Contributions {
 public:
  using T = Compute<S>;
  enum class Role { kAnchor, kTable, kBoth };

  Contributions(const Triplets<S, TripletLossBackward>& triplets, const Coefficients<T>* coefficients, int64_t rows, Role role)
      : start(rows + 1), item(triplets.p.count * (role == Role::kBoth ? 4 : 2)) {
    std::fill(start.get(), start.get() + rows + 1, int64_t(0));
    visit(triplets, coefficients, role, [&](int64_t row, const S*, T) { ++start[row]; });
    int64_t total = 0;
    for (int64_t r = 0; r < rows; ++r) total += std::exchange(start[r], total);
    visit(triplets, coefficients, role, [&](int64_t row, const S* other, T c) { item[start[row]++] = {other, c}; });
    for (int64_t r = rows; r > 0; --r) start[r] = start[r - 1];
    start[0] = 0;
  }

  Buffer<int64_t> start;
  Buffer<Contribution<S>> item;

 private:
  // A NaN coefficient whose other row does not exist goes to the anchor all the same.
  template <class F>
  static void visit(const Triplets<S, TripletLossBackward>& triplets, const Coefficients<T>* coefficients, Role role, F&& emit) {
    for (int64_t t = 0; t < triplets.p.count; ++t) {
      const auto [to_positive, to_negative] = coefficients[t];
      if (to_positive == T(0) && to_negative == T(0)) continue;
      const int64_t a = triplets.anchor_index(t), p = triplets.positive_index(t), n = triplets.negative_index(t);
      const S *anchor = triplets.row(triplets.x, a), *positive = triplets.row(triplets.positives, p),
              *negative = triplets.row(triplets.negatives, n);
      if (role != Role::kTable && to_positive != T(0)) emit(a, p < 0 ? anchor : positive, to_positive);
      if (role != Role::kTable && to_negative != T(0)) emit(a, n < 0 ? anchor : negative, to_negative);
      if (role != Role::kAnchor && to_positive != T(0) && p >= 0) emit(p, anchor, to_positive);
      if (role != Role::kAnchor && to_negative != T(0) && n >= 0) emit(n, anchor, to_negative);
    }
  }
};

// Vectors of a row that are summed in registers at a time.
constexpr int kRowVectors = Simd<float>::lanes == 16 ? 8 : 4;

// Sums contributions into out, U vectors of the row from k on; n lanes of the last one.
template <Metric M, int U, class S, class Out>
inline void sum_block(const S* own, const Contribution<S>* item, int64_t count, int64_t k, int n, Out* out) {
  using T = Compute<S>;
  using L = Simd<T>;
  typename L::V mine[U], sum[U];
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u) {
    mine[u] = load_lanes<T>(own, k + u * L::lanes, n);
    sum[u] = L::zero();
  }
  for (int64_t i = 0; i < count; ++i) {
    const auto c = L::set1(item[i].coefficient);
    const S* other = item[i].other;
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) sum[u] = L::fma(c, distance_direction<M, T>(mine[u], load_lanes<T>(other, k + u * L::lanes, n)), sum[u]);
  }
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u) store_lanes<T>(out, k + u * L::lanes, n, sum[u]);
}

template <Metric M, class S, class Out>
inline void sum_contributions(const S* own, const Contribution<S>* item, int64_t count, int64_t depth, Out* out) {
  constexpr int L = Simd<Compute<S>>::lanes;
  int64_t k = 0;
  for (; k + kRowVectors * L <= depth; k += kRowVectors * L) sum_block<M, kRowVectors>(own, item, count, k, L, out);
  for (; k + L <= depth; k += L) sum_block<M, 1>(own, item, count, k, L, out);
  if (k < depth) sum_block<M, 1>(own, item, count, k, static_cast<int>(depth - k), out);
}

// Writes the gradient of every row of `own`, each once: hubs piece by piece.
template <Metric M, class S>
class GradientWriter {
 public:
  using T = Compute<S>;
  GradientWriter(const Contributions<S>& contributions, const S* own, int64_t rows, int64_t depth, int threads, S* grad)
      : start_(contributions.start.get()), item_(contributions.item.get()), own_(own), depth_(depth), threads_(threads), grad_(grad) {
    for_chunks(rows, threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        if (count(r) <= kContributions) sum_contributions<M>(own + r * depth, item_ + start_[r], count(r), depth, grad + r * depth);
    });
    write_hubs(rows);
  }

 private:
  struct Piece {
    int64_t row, begin, end;
  };

  int64_t count(int64_t row) const { return start_[row + 1] - start_[row]; }
  // Pieces of a hub; 0 for any other row.
  int64_t piece_count(int64_t row) const { return count(row) > kContributions ? (count(row) + kContributions - 1) / kContributions : 0; }

  void write_hubs(int64_t rows) const {
    int64_t pieces = 0;
    for (int64_t r = 0; r < rows; ++r) pieces += piece_count(r);
    if (pieces == 0) return;
    const Buffer<Piece> piece(pieces);
    pieces = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < piece_count(r); ++i)
        piece[pieces++] = {r, start_[r] + i * kContributions, std::min(start_[r] + (i + 1) * kContributions, start_[r + 1])};
    const Buffer<T> sums(pieces * depth_);
    for_chunks(
        pieces, threads_,
        [&](int64_t i, int64_t, int64_t) {
          const Piece& part = piece[i];
          sum_contributions<M>(own_ + part.row * depth_, item_ + part.begin, part.end - part.begin, depth_, sums.get() + i * depth_);
        },
        1);
    for_chunks(
        pieces, threads_,
        [&](int64_t first, int64_t, int64_t) {
          const int64_t row = piece[first].row;
          if (piece[first].begin == start_[row]) add_pieces(sums.get() + first * depth_, piece_count(row), grad_ + row * depth_);
        },
        1);
  }

  void add_pieces(const T* sums, int64_t pieces, S* grad) const {
    for_lanes<T>(depth_, [&](int64_t k, int n) {
      auto total = load_lanes<T>(sums, k, n);
      for (int64_t i = 1; i < pieces; ++i) total += load_lanes<T>(sums + i * depth_, k, n);
      store_lanes<T>(grad, k, n, total);
    });
  }

  const int64_t* start_;
  const Contribution<S>* item_;
  const S* own_;
  int64_t depth_;
  int threads_;
  S* grad_;
};

template <Metric M, class S>
inline void triplet_row_backward(Coefficients<Compute<S>> c, const S* anchor, const S* positive, const S* negative, int64_t depth,
                                 S* grad_anchor, S* grad_positive, S* grad_negative) {
  using T = Compute<S>;
  const auto pull = Simd<T>::set1(c.positive), push = Simd<T>::set1(c.negative);
  for_lanes<T>(depth, [&](int64_t k, int n) {
    const auto a = load_lanes<T>(anchor, k, n), p = load_lanes<T>(positive, k, n), q = load_lanes<T>(negative, k, n);
    store_lanes<T>(grad_anchor, k, n, Simd<T>::fma(pull, distance_direction<M, T>(a, p), push * distance_direction<M, T>(a, q)));
    store_lanes<T>(grad_positive, k, n, pull * distance_direction<M, T>(p, a));
    store_lanes<T>(grad_negative, k, n, push * distance_direction<M, T>(q, a));
  });
}

template <class S>
struct TripletLossBackwardKernel {
  using T = Compute<S>;
  using Role = typename Contributions<S>::Role;

  static void run(const TripletLossBackward& p) {
    for_metric(p.metric,
               [&](auto metric) { p.positive == nullptr ? by_rows<decltype(metric)::value>(p) : by_index<decltype(metric)::value>(p); });
  }

  template <Metric M>
  static void by_rows(const TripletLossBackward& p) {
    const Triplets<S, TripletLossBackward> triplets(p);
    S *grad_x = static_cast<S*>(p.grad_x), *grad_p = static_cast<S*>(p.grad_positive), *grad_n = static_cast<S*>(p.grad_negative);
    for_chunks(p.count, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t t = begin, at = begin * p.depth; t < end; ++t, at += p.depth)
        triplet_row_backward<M>(triplet_coefficients<M, T>(p, t, true, true), triplets.x + at, triplets.positives + at,
                                triplets.negatives + at, p.depth, grad_x + at, grad_p + at, grad_n + at);
    });
  }

  template <Metric M>
  static void by_index(const TripletLossBackward& p) {
    const Triplets<S, TripletLossBackward> triplets(p);
    const Buffer<Coefficients<T>> coefficients(p.count);
    for_chunks(p.count, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const bool known = triplets.anchor_index(t) >= 0;
        coefficients[t] = known ? triplet_coefficients<M, T>(p, t, triplets.positive_index(t) >= 0, triplets.negative_index(t) >= 0)
                                : Coefficients<T>{T(0), T(0)};
      }
    });
    const auto write = [&](Role role, const S* own, int64_t rows, void* grad) {
      const Contributions<S> contributions(triplets, coefficients.get(), rows, role);
      GradientWriter<M, S>(contributions, own, rows, p.depth, p.threads, static_cast<S*>(grad));
    };
    write(p.grad_table == nullptr ? Role::kBoth : Role::kAnchor, triplets.x, p.x_rows, p.grad_x);
    if (p.grad_table != nullptr) write(Role::kTable, triplets.positives, p.table_rows, p.grad_table);
  }
};

void triplet_loss_backward(const TripletLossBackward& p) { by_dtype<TripletLossBackward, TripletLossBackwardKernel>(p); }
