// One-shot look-up: the k best supports of each query, the score matrix never written; see tile.inl for the tiles.
//
// euclidean: score = q.s - |s|^2 / 2, the query's own norm changes no order. For one neighbour a vector of scores costs an add, a compare
// and two blends into the best of each lane; for k, an add and a compare with the k-th best, and only a vector that beats it, about k ln(S
// / k) times a row, is inserted. Supports arrive in ascending order within a task, so a strict compare keeps the lowest index; tasks are
// merged by (score, index). At the end the k winners are scored by exact differences.
//
// Limit: one fma an element (Koch and manhattan: three instructions). One query or two: the bandwidth of the packed supports, which half
// types halve: they stay in their own type and are widened in registers, or panel by panel where many queries share a panel.

// The packed supports: a header that tells the layout, panels of kColumns rows, k-major and in the type of the supports, then one offset a
// row, NaN past the end.
struct PackedHeader {
  int64_t columns, supports, depth;
  Metric metric;
  Dtype dtype;
  char unused[32];
};
static_assert(sizeof(PackedHeader) == 64, "the panels begin at a cache line");

template <class S>
struct Packed {
  const S* panels = nullptr;
  const Compute<S>* offsets = nullptr;
};

template <class T>
inline int64_t packed_rows(int64_t supports) {
  return round_up(supports, kColumns<T>);
}

// The panels of a packed set, none if it was packed for another instruction set, metric or dtype: the rows are then packed on the way.
template <class S>
inline Packed<S> open_packed(const NearestSupport& p) {
  using T = Compute<S>;
  const auto* header = static_cast<const PackedHeader*>(p.packed);
  if (header == nullptr || header->columns != kColumns<T> || header->supports != p.supports || header->depth != p.depth ||
      header->metric != p.metric || header->dtype != p.dtype)
    return {};
  const S* panels = reinterpret_cast<const S*>(header + 1);
  return {panels, reinterpret_cast<const T*>(panels + packed_rows<T>(p.supports) * p.depth)};
}

template <class S>
inline void support_offsets(Metric metric, const S* rows, int64_t depth, int64_t begin, int64_t end, Compute<S>* out) {
  using T = Compute<S>;
  for (int64_t j = begin; j < end; ++j) out[j - begin] = product_offset(metric, rows + j * depth, depth);
  for (int64_t j = end; j < round_up(end, kColumns<T>); ++j) out[j - begin] = std::numeric_limits<T>::quiet_NaN();
}

std::int64_t packed_bytes(const PackSupport& p) {
  std::int64_t bytes = 0;
  for_dtype(p.dtype, [&](auto storage) {
    using T = Compute<decltype(storage)>;
    const int64_t row_bytes = p.depth * static_cast<int64_t>(sizeof(storage)) + static_cast<int64_t>(sizeof(T));
    bytes = static_cast<int64_t>(sizeof(PackedHeader)) + packed_rows<T>(p.supports) * row_bytes;
  });
  return bytes;
}

template <class S>
struct PackSupportKernel {
  static void run(const PackSupport& p) {
    using T = Compute<S>;
    const S* s = static_cast<const S*>(p.s);
    auto* header = static_cast<PackedHeader*>(p.packed);
    *header = {kColumns<T>, p.supports, p.depth, p.metric, p.dtype, {}};
    S* panels = reinterpret_cast<S*>(header + 1);
    T* offsets = reinterpret_cast<T*>(panels + packed_rows<T>(p.supports) * p.depth);
    for_chunks(p.supports, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      pack<T>(s, nullptr, begin, end, p.depth, kColumns<T>, panels + begin * p.depth);
      support_offsets(p.metric, s, p.depth, begin, end, offsets + begin);
    });
  }
};

void pack_support(const PackSupport& p) { by_dtype<PackSupport, PackSupportKernel>(p); }

// Columns of a task, so that their numbers fit the lanes of a vector.
template <class T>
constexpr int64_t kMostColumns = std::numeric_limits<typename Simd<T>::Int>::max() / 2;

template <class Form, class S>
struct LookUp {
  using T = Compute<S>;
  using L = Simd<T>;
  const NearestSupport& p;
  const S *q, *s;
  const T* weight;

  T exact(int64_t i, int64_t j) const {
    const S *x = q + i * p.depth, *y = s + j * p.depth;
    if (p.metric == Metric::kKoch) return *static_cast<const T*>(p.bias) + l1_logit(x, y, weight, p.depth);
    T distance = 0;
    for_metric(p.metric, [&](auto metric) { distance = row_distance<decltype(metric)::value, S>(x, y, p.depth); });
    return p.metric == Metric::kCosine ? T(1) - distance : -distance;
  }

  struct Scratch {
    Scratch(const Split& split, int64_t depth)
        : tiles(split, depth), offsets(TaskScratch<Form, S>::panels_in_flight(depth) * kColumns<T>) {}
    TaskScratch<Form, S> tiles;
    Buffer<T> offsets;
    std::unique_ptr<LaneBest<T>> first;    // of a look-up of one neighbour
    std::unique_ptr<RunningTopK<T>> best;  // of any other
  };

  // One neighbour: the tile against the best so far of each lane.
  template <int R>
  static void take_first(const Block<T, R>& scores, const T* offsets, int64_t row, int64_t column, const LaneBest<T>& best) {
    using Int = typename L::Int;
    const typename L::V offset[2] = {L::load(offsets), L::load(offsets + L::lanes)};
    const typename L::VI number[2] = {L::from(static_cast<Int>(column)), L::from(static_cast<Int>(column + L::lanes))};
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      auto value = L::load(best.value(row + r));
      auto index = L::load(best.index(row + r));
      for (int v = 0; v < 2; ++v) L::template keep_larger<false>(L::all(), scores[r][v] + offset[v], number[v], value, index);
      L::store(best.value(row + r), value);
      L::store(best.index(row + r), index);
    }
  }

  // Vectors of one tile that beat a row's k-th best; of the rows that there are, since padding would be inserted too.
  template <int R>
  static void take(const Block<T, R>& scores, const T* offsets, int64_t row, int64_t rows, int64_t column, RunningTopK<T>& best) {
    for (int r = 0; r < std::min<int64_t>(R, rows); ++r) {
      for (int v = 0; v < 2; ++v) {
        const auto score = scores[r][v] + L::load(offsets + v * L::lanes);
        const unsigned bits = L::greater(score, L::set1(best.threshold(row + r)));
        if (__builtin_expect(bits != 0, 0)) best.push(row + r, score, bits, static_cast<typename L::Int>(column + v * L::lanes));
      }
    }
  }

  void search(const Split& split, int64_t task, Scratch& scratch, TopK<T>& found, omp_lock_t* locks) const {
    const Range rows = split.rows(task, p.queries), columns = split.columns(task, p.supports);
    const Packed<S> packed = open_packed<S>(p);
    const Operands<S> operands = {q, s, p.depth, weight, nullptr, packed.panels};
    const bool one = found.k == 1;
    one ? scratch.first->clear(split.row_step) : scratch.best->clear(split.row_step);
    const T* offsets = nullptr;
    int64_t entered = 0;
    const auto enter = [&](int64_t begin, int64_t end) {
      if (packed.panels == nullptr) support_offsets(p.metric, s, p.depth, begin, end, scratch.offsets.get());
      offsets = packed.panels != nullptr ? packed.offsets + begin : scratch.offsets.get();
      entered = begin;
    };
    for_tiles<Form, S>(operands, rows, columns, scratch.tiles, enter, [&](int64_t i, int64_t j, auto& scores) {
      const T* offset = offsets + (j - entered);
      const int64_t row = i - rows.begin, column = j - columns.begin;
      one ? take_first(scores, offset, row, column, *scratch.first) : take(scores, offset, row, rows.end - i, column, *scratch.best);
    });
    omp_set_lock(&locks[task / split.column_tasks]);
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      const auto insert = [&](T score, int64_t column) { found.insert(i, score, columns.begin + column); };
      one ? scratch.first->fold(i - rows.begin, insert) : scratch.best->each(i - rows.begin, insert);
    }
    omp_unset_lock(&locks[task / split.column_tasks]);
  }

  // Where nothing said what is nearest: a row that is not full (scores of -inf never win above), or a query whose own norm overflows.
  bool unresolved(int64_t i, const TopK<T>& found) const {
    return !found.full(i) || !(product_offset(p.metric, q + i * p.depth, p.depth) > -std::numeric_limits<T>::infinity());
  }

  // Scores the winners exactly and puts them in that order; an unresolved row meets every support.
  void finish(const TopK<T>& found) const {
    const int64_t kept = found.k;
    std::unique_ptr<std::unique_ptr<TopK<T>>[]> scratch(new std::unique_ptr<TopK<T>>[p.threads]);
    for (int t = 0; t < p.threads; ++t) scratch[t].reset(new TopK<T>(1, kept));
    for_chunks(p.queries, p.threads, [&](int64_t, int64_t begin, int64_t end) {
      TopK<T>& exactly = *scratch[omp_get_thread_num()];
      for (int64_t i = begin; i < end; ++i) {
        exactly.clear(1);
        const bool search_all = kept > 0 && unresolved(i, found);
        for (int64_t n = 0; n < (search_all ? p.supports : kept); ++n) {
          const int64_t j = search_all ? n : found.index[i * kept + n];
          const T score = exact(i, j);
          if (score == score) exactly.insert(0, score, j);
        }
        T* scores = static_cast<T*>(p.scores) + i * p.k;
        std::copy(exactly.score.get(), exactly.score.get() + kept, scores);
        std::fill(scores + kept, scores + p.k, -std::numeric_limits<T>::infinity());
        std::copy(exactly.index.get(), exactly.index.get() + kept, p.indices + i * p.k);
        std::fill(p.indices + i * p.k + kept, p.indices + (i + 1) * p.k, int64_t(-1));
      }
    });
  }

  void run() const {
    TopK<T> found(p.queries, std::min(p.k, p.supports));
    found.clear(p.queries);
    if (p.queries > 0 && p.supports > 0) search_all_tasks(found);
    finish(found);
  }

  void search_all_tasks(TopK<T>& found) const {
    const Split s = split<Form, T>(p.queries, p.supports, p.depth, p.threads, kMostColumns<T>);
    std::unique_ptr<omp_lock_t[]> locks(new omp_lock_t[s.row_tasks]);
    for (int64_t i = 0; i < s.row_tasks; ++i) omp_init_lock(&locks[i]);
    for_tasks<Scratch>(
        s, p.depth, p.threads,
        [&](Scratch& scratch) {
          if (found.k == 1)
            scratch.first.reset(new LaneBest<T>(s.row_step));
          else
            scratch.best.reset(new RunningTopK<T>(s.row_step, found.k));
        },
        [&](int64_t task, Scratch& scratch) { search(s, task, scratch, found, locks.get()); });
    for (int64_t i = 0; i < s.row_tasks; ++i) omp_destroy_lock(&locks[i]);
  }
};

template <class S>
struct NearestSupportKernel {
  static void run(const NearestSupport& p) {
    using T = Compute<S>;
    const Filled<T> minus(p.metric == Metric::kManhattan ? p.depth : 0, T(-1));
    const S *q = static_cast<const S*>(p.q), *s = static_cast<const S*>(p.s);
    if (p.metric == Metric::kManhattan)
      LookUp<WeightedAbs, S>{p, q, s, minus.get()}.run();
    else if (p.metric == Metric::kKoch)
      LookUp<WeightedAbs, S>{p, q, s, static_cast<const T*>(p.weight)}.run();
    else
      LookUp<Product, S>{p, q, s, nullptr}.run();
  }
};

void nearest_support(const NearestSupport& p) { by_dtype<NearestSupport, NearestSupportKernel>(p); }
