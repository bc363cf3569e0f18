// The gradient of all pairs from their coefficients kappa = d loss / d score, block by block:
//
//     dx_i = sum_j kappa_ij y_j - x_i sum_j kappa_ij        dy_j = sum_i kappa_ij x_i - y_j sum_i kappa_ij
//
// where the second terms, and a factor in kappa, are those of the euclidean metrics.

// d score / d product, times kappa: of a score -d^2 or -d; 0 at euclidean distance 0.
template <class T>
inline typename Simd<T>::V through_metric(Metric metric, typename Simd<T>::V kappa, typename Simd<T>::V score) {
  if (metric == Metric::kSqEuclidean) return kappa + kappa;
  if (metric == Metric::kEuclidean) return score < Simd<T>::zero() ? -kappa / score : kappa * Simd<T>::zero();
  return kappa;
}

template <class T>
class PairGradient {
  using L = Simd<T>;
  static constexpr int64_t kPitch = PairBlocks<T>::kPitch;

 public:
  explicit PairGradient(const PairBlocks<T>& blocks)
      : blocks_(blocks),
        self_(blocks.pairs.self),
        x_(blocks.rows, blocks.pairs.depth),
        x_sums_(blocks.rows, blocks.pairs.depth),
        y_(self_ ? 0 : blocks.columns, blocks.pairs.depth),
        y_sums_(self_ ? 0 : blocks.columns, blocks.pairs.depth),
        x_total_(round_up(blocks.rows, 64) + 64, T(0)),
        y_total_(self_ ? 0 : round_up(blocks.columns, 64) + 64, T(0)) {
    const Pairs& p = blocks.pairs;
    x_.set(p.depth, p.threads, [&](int64_t i) { return blocks.x(i); });
    x_sums_.clear();
    y_sums_.clear();
    if (!self_) y_.set(p.depth, p.threads, [&](int64_t j) { return blocks.y(j); });
  }

  // Adds what the coefficients of a block mean for its rows and, unless they are those of its own transpose, for its columns.
  void add(const T* kappa, Range rows, Range columns, bool both) {
    const int threads = blocks_.pairs.threads;
    if (blocks_.euclidean) add_totals(kappa, rows, columns, both);
    add_products<T, kPitch, 1>(kappa, self_ ? x_ : y_, columns, x_sums_, rows, threads);
    if (both) add_products<T, 1, kPitch>(kappa, x_, rows, self_ ? x_sums_ : y_sums_, columns, threads);
  }

  // The same for coefficients one by one, zeros left out; every panel of the rows has one writer.
  struct Coefficient {
    int64_t i, j;
    T kappa;
  };
  void add_few(const Coefficient* item, int64_t count) {
    const WeightedRows<T>&y = self_ ? x_ : y_, &y_sums = self_ ? x_sums_ : y_sums_;
    T* y_total = (self_ ? x_total_ : y_total_).get();
    for (int64_t n = 0; n < count; ++n) {
      if (item[n].kappa == T(0)) continue;
      x_total_[item[n].i] += item[n].kappa;
      y_total[item[n].j] += item[n].kappa;
    }
    for_chunks(
        x_.panels, blocks_.pairs.threads,
        [&](int64_t p, int64_t, int64_t) {
          for (int64_t n = 0; n < count; ++n) {
            const auto [i, j, kappa] = item[n];
            if (kappa == T(0)) continue;
            add_row(kappa, y.at(p, j), x_sums_.at(p, i));
            add_row(kappa, x_.at(p, i), y_sums.at(p, j));
          }
        },
        1);
  }

  void write(void* grad_x, void* grad_ref) const {
    write_rows(
        x_sums_, x_total_.get(), blocks_.rows, [&](int64_t i) { return blocks_.x(i); }, [&](int64_t i) { return blocks_.row(i); },
        static_cast<T*>(grad_x));
    if (!self_)
      write_rows(
          y_sums_, y_total_.get(), blocks_.columns, [&](int64_t j) { return blocks_.y(j); }, [&](int64_t j) { return blocks_.column(j); },
          static_cast<T*>(grad_ref));
  }

 private:
  static void add_row(T kappa, const T* row, T* sum) {
    for (int v = 0; v < kColumns<T>; v += L::lanes) L::store(sum + v, L::fma(L::set1(kappa), L::load(row + v), L::load(sum + v)));
  }

  void add_totals(const T* kappa, Range rows, Range columns, bool both) {
    const int64_t width = columns.end - columns.begin;
    for_chunks(
        rows.end - rows.begin, blocks_.pairs.threads,
        [&](int64_t, int64_t first, int64_t last) {
          for (int64_t i = first; i < last; ++i)
            x_total_[rows.begin + i] +=
                sum_over<T>(width, [&](int64_t k, int n, auto sum) { return sum + load_lanes<T>(kappa + i * kPitch, k, n); });
        },
        32);
    if (!both) return;
    T* out = (self_ ? x_total_ : y_total_).get() + columns.begin;
    for_chunks(
        width, blocks_.pairs.threads,
        [&](int64_t, int64_t first, int64_t last) {
          auto total = L::load(out + first);
          for (int64_t i = 0; i < rows.end - rows.begin; ++i) total += L::load(kappa + i * kPitch + first);
          L::store(out + first, total, static_cast<int>(last - first));
        },
        L::lanes);
  }

  template <class Row, class Order>
  void write_rows(const WeightedRows<T>& sums, const T* total, int64_t rows, Row&& row, Order&& order, T* out) const {
    constexpr int C = kColumns<T>;
    const int64_t depth = blocks_.pairs.depth;
    for_chunks(rows, blocks_.pairs.threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for_lanes<T>(depth, [&](int64_t k, int n) {
          auto value = L::load(sums.at(k / C, i) + k % C);
          if (blocks_.euclidean) value = L::fma(L::set1(-total[i]), load_lanes<T>(row(i), k, n), value);
          store_lanes<T>(out + order(i) * depth, k, n, value);
        });
    });
  }

  const PairBlocks<T>& blocks_;
  const bool self_;
  WeightedRows<T> x_, x_sums_, y_, y_sums_;
  Filled<T> x_total_, y_total_;
};
