// Losses of each row over all pairs, and their gradients: PairBlocks driven by a formula of pair_losses/.
//
// A formula keeps kFields numbers for each row. `visit` adds a segment of scores to them, by rows or by columns as `Add` decides; `close`
// completes a row after each of the kSweeps sweeps (those after the first see only blocks with positives); `write` gives its kComponents
// losses and counts of terms. `slope` is d loss / d score of a pair, by component 0 for positives and the last component for negatives.
//
// Gradient: kappa_ij = g_i slope_i(s_ij), plus g_j slope_j(s_ij) in a batch against itself; pair_gradient.inl does the rest.

template <class T>
struct Fields {
  Fields(int count, int64_t rows) : stride(round_up(rows, 64) + 64), data(count * stride) {}
  T* operator()(int field) const { return data.get() + field * stride; }
  int64_t stride;
  Buffer<T> data;
};

// A segment of row i.
template <class T>
struct AddRow {
  using L = Simd<T>;
  using V = typename L::V;
  const Fields<T>& fields;
  int64_t i;
  const T* scores;
  int64_t count;

  V value(int field) const { return L::set1(fields(field)[i]); }

  // Fields `top`, `top + 1` of a logarithm of a sum of exponentials: the largest exponent and the sum relative to it.
  template <class F>
  void log_sum(int top, F&& exponent) const {
    constexpr T nothing = -std::numeric_limits<T>::infinity();
    T &largest = fields(top)[i], &sum = fields(top + 1)[i];
    V most = L::set1(std::max(largest, std::numeric_limits<T>::lowest()));
    for_vectors(scores, count, [&](V s, int n) { most = L::max(most, first_lanes(exponent(s), n, nothing)); });
    alignas(64) T lanes[L::lanes];
    L::store(lanes, most);
    const T before = largest;
    largest = *std::max_element(lanes, lanes + L::lanes);
    const V shift = L::set1(largest);
    V total = L::zero();
    for_vectors(scores, count, [&](V s, int n) { total += exp_lanes<T>(first_lanes(exponent(s) - shift, n, nothing)); });
    sum = sum * exp_of_negative(before - largest) + L::sum(total);
  }

  // Fields `first`, `first + 1`: sums of the two terms that term(s, a, b) gives.
  template <class F>
  void sums(int first, F&& term) const {
    V total_a = L::zero(), total_b = L::zero();
    for_vectors(scores, count, [&](V s, int n) {
      V a, b;
      term(s, a, b);
      total_a += first_lanes(a, n, T(0));
      total_b += first_lanes(b, n, T(0));
    });
    fields(first)[i] += L::sum(total_a);
    fields(first + 1)[i] += L::sum(total_b);
  }

  // Field `field`: the sum of term(s).
  template <class F>
  void sum(int field, F&& term) const {
    V total = L::zero();
    for_vectors(scores, count, [&](V s, int n) { total += first_lanes(term(s), n, T(0)); });
    fields(field)[i] += L::sum(total);
  }
};

// A segment of `count` rows of columns j .. j + n - 1.
template <class T, int64_t kPitch>
struct AddColumns {
  using L = Simd<T>;
  using V = typename L::V;
  const Fields<T>& fields;
  int64_t j;
  int n;
  const T* scores;
  int64_t count;

  V value(int field) const { return L::load(fields(field) + j); }
  void set(int field, V v) const { L::store(fields(field) + j, v, n); }

  template <class F>
  void log_sum(int top, F&& exponent) const {
    const V before = value(top);
    V most = L::max(L::set1(std::numeric_limits<T>::lowest()), before), total = L::zero();
    for (int64_t r = 0; r < count; ++r) most = L::max(most, exponent(L::load(scores + r * kPitch)));
    for (int64_t r = 0; r < count; ++r) total += exp_lanes<T>(exponent(L::load(scores + r * kPitch)) - most);
    set(top + 1, L::fma(value(top + 1), exp_lanes<T>(before - most), total));
    set(top, most);
  }

  template <class F>
  void sums(int first, F&& term) const {
    V total_a = L::zero(), total_b = L::zero();
    for (int64_t r = 0; r < count; ++r) {
      V a, b;
      term(L::load(scores + r * kPitch), a, b);
      total_a += a;
      total_b += b;
    }
    set(first, value(first) + total_a);
    set(first + 1, value(first + 1) + total_b);
  }

  template <class F>
  void sum(int field, F&& term) const {
    V total = value(field);
    for (int64_t r = 0; r < count; ++r) total += term(L::load(scores + r * kPitch));
    set(field, total);
  }
};

template <class Formula, class T>
void add_block(const PairBlocks<T>& blocks, const Formula& formula, const Fields<T>& fields, int sweep, Range rows, Range columns) {
  constexpr int L = Simd<T>::lanes;
  using Columns = AddColumns<T, PairBlocks<T>::kPitch>;
  const int threads = blocks.pairs.threads;
  for_chunks(
      rows.end - rows.begin, threads,
      [&](int64_t, int64_t first, int64_t last) {
        for (int64_t i = rows.begin + first; i < rows.begin + last; ++i)
          blocks.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
            formula.visit(AddRow<T>{fields, i, blocks.at(rows, columns, i, begin), end - begin}, sweep, positive);
          });
      },
      32);
  if (!blocks.pairs.self || rows.begin == columns.begin) return;
  int64_t first_positive, last_positive;
  blocks.shared_class(rows, columns, first_positive, last_positive);
  const auto strip = [&](int64_t begin, int64_t end, int64_t split) {
    for_chunks(
        end - begin, threads,
        [&](int64_t, int64_t first, int64_t last) {
          const int64_t j = begin + first;
          const int n = static_cast<int>(last - first);
          const auto add = [&](int64_t from, int64_t to, bool positive) {
            if (from < to) formula.visit(Columns{fields, j, n, blocks.at(rows, columns, from, j), to - from}, sweep, positive);
          };
          add(rows.begin, split, false);
          add(split, rows.end, true);
        },
        L);
  };
  strip(columns.begin, last_positive, first_positive);
  strip(last_positive, columns.end, rows.end);
}

template <class Formula, class T>
void pair_loss_forward(const PairLoss& p) {
  const Formula formula(p.parameter);
  PairBlocks<T> blocks(p);
  Fields<T> fields(Formula::kFields, blocks.rows);
  for (int f = 0; f < Formula::kFields; ++f) std::fill(fields(f), fields(f) + fields.stride, Formula::start(f));
  for (int sweep = 0; sweep < Formula::kSweeps; ++sweep) {
    blocks.for_blocks(sweep > 0, [&](Range rows, Range columns) { add_block(blocks, formula, fields, sweep, rows, columns); });
    for_chunks(blocks.rows, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        formula.close([&](int f) -> T& { return fields(f)[i]; }, sweep, T(blocks.positives(i)), T(blocks.negatives(i)));
    });
  }
  T *losses = static_cast<T*>(p.losses), *counts = static_cast<T*>(p.counts), *statistics = static_cast<T*>(p.statistics);
  for (int64_t i = 0; i < blocks.rows; ++i) {
    const int64_t row = blocks.row(i) * Formula::kComponents;
    formula.write([&](int f) { return fields(f)[i]; }, T(blocks.positives(i)), losses + row, counts + row);
    for (int f = 0; f < Formula::kFields; ++f) statistics[f * p.rows + blocks.row(i)] = fields(f)[i];
  }
}

// Columns seen part by part: fields come in as earlier calls left them, and go out without `close`.
template <class Formula, class T>
void pair_loss_visit(const PairLossVisit& p) {
  const Formula formula(p.parameter);
  PairBlocks<T> blocks(p);
  Fields<T> fields(Formula::kFields, p.rows);
  T* carried = static_cast<T*>(p.fields);
  for (int f = 0; f < Formula::kFields; ++f) {
    std::fill(fields(f), fields(f) + fields.stride, Formula::start(f));
    for (int64_t i = 0; i < p.rows; ++i) fields(f)[i] = carried[f * p.rows + blocks.row(i)];
  }
  blocks.for_blocks(p.sweep > 0, [&](Range rows, Range columns) { add_block(blocks, formula, fields, p.sweep, rows, columns); });
  for (int f = 0; f < Formula::kFields; ++f)
    for (int64_t i = 0; i < p.rows; ++i) carried[f * p.rows + blocks.row(i)] = fields(f)[i];
}

// Overwrites the scores of row i in a block by kappa.
template <class Formula, class T>
void weigh_row(const PairBlocks<T>& blocks, const Formula& formula, const Fields<T>& fields, Range rows, Range columns, int64_t i) {
  using L = Simd<T>;
  using V = typename L::V;
  constexpr int kGrad = Formula::kFields, kLast = Formula::kComponents - 1;
  const Metric metric = blocks.pairs.metric;
  T* row = blocks.at(rows, columns, i, columns.begin);
  int64_t done = 0;
  blocks.for_segments(i, columns, [&](int64_t begin, int64_t end, bool positive) {
    const int grad = kGrad + (positive ? 0 : kLast);
    T* s = row + (begin - columns.begin);
    std::fill(row + done, s, T(0));
    done = end - columns.begin;
    const auto of_row = [&](int f) { return L::set1(fields(f)[i]); };
    for_lanes<T>(end - begin, [&](int64_t k, int n) {
      const V score = load_lanes<T>(s, k, n);
      const auto of_column = [&](int f) { return L::load(fields(f) + begin + k); };
      V kappa = of_row(grad) * formula.slope(score, positive, of_row);
      if (blocks.pairs.self) kappa = L::fma(of_column(grad), formula.slope(score, positive, of_column), kappa);
      store_lanes<T>(s, k, n, through_metric<T>(metric, kappa, score));
    });
  });
  std::fill(row + done, row + (columns.end - columns.begin), T(0));
}

template <class Formula, class T>
void pair_loss_backward(const PairLossBackward& p) {
  constexpr int kFields = Formula::kFields, kComponents = Formula::kComponents;
  const Formula formula(p.parameter);
  PairBlocks<T> blocks(p);
  Fields<T> fields(kFields + kComponents, blocks.rows);
  const T *statistics = static_cast<const T*>(p.statistics), *grad = static_cast<const T*>(p.grad);
  for (int64_t i = 0; i < blocks.rows; ++i) {
    for (int f = 0; f < kFields; ++f) fields(f)[i] = statistics[f * p.rows + blocks.row(i)];
    for (int c = 0; c < kComponents; ++c) fields(kFields + c)[i] = grad[blocks.row(i) * kComponents + c];
  }
  PairGradient<T> gradient(blocks);
  blocks.for_blocks(false, [&](Range rows, Range columns) {
    for_chunks(
        rows.end - rows.begin, p.threads,
        [&](int64_t, int64_t first, int64_t last) {
          for (int64_t i = rows.begin + first; i < rows.begin + last; ++i) weigh_row(blocks, formula, fields, rows, columns, i);
        },
        32);
    gradient.add(blocks.at(rows, columns, rows.begin, columns.begin), rows, columns, !p.self || rows.begin != columns.begin);
  });
  gradient.write(p.grad_x, p.grad_ref);
}

template <class F>
void for_pair_formula(const Pairs& p, F&& f) {
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    switch (p.formula) {
      case PairFormula::kNtXent: return f(zero, static_cast<NtXent<T>*>(nullptr));
      case PairFormula::kSupCon: return f(zero, static_cast<SupCon<T>*>(nullptr));
      case PairFormula::kContrastive: return f(zero, static_cast<Contrastive<T>*>(nullptr));
      case PairFormula::kMultiSimilarity: return f(zero, static_cast<MultiSimilarity<T>*>(nullptr));
      case PairFormula::kCircle: return f(zero, static_cast<Circle<T>*>(nullptr));
    }
  };
  p.dtype == Dtype::kFloat64 ? typed(double(0)) : typed(float(0));
}

void pair_loss(const PairLoss& p) {
  for_pair_formula(p, [&](auto zero, auto formula) { pair_loss_forward<std::remove_pointer_t<decltype(formula)>, decltype(zero)>(p); });
}

void pair_loss_visit(const PairLossVisit& p) {
  for_pair_formula(p, [&](auto zero, auto formula) { pair_loss_visit<std::remove_pointer_t<decltype(formula)>, decltype(zero)>(p); });
}

void pair_loss_backward(const PairLossBackward& p) {
  for_pair_formula(p, [&](auto zero, auto formula) { pair_loss_backward<std::remove_pointer_t<decltype(formula)>, decltype(zero)>(p); });
}
