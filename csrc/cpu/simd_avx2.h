// AVX2 with FMA and F16C. Included inside the namespace of one instruction set, under its target pragma.
//
//   instruction          Zen 3 (per cycle)   Haswell to Skylake (per cycle)
//   vfmadd ymm           2                   2
//   vaddps/vsubps ymm    2                   1 (Haswell), 2
//   vandps ymm           4                   1 (Haswell), 3
//   load ymm             2                   2

template <class T>
struct Simd;

template <>
struct Simd<float> {
  using V = __m256;
  using Int = std::int32_t;
  using VI = __m256i;
  using Mask = __m256i;  // all bits of an allowed lane
  static constexpr int lanes = 8;
  static __m256i first(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }

  static V zero() { return _mm256_setzero_ps(); }
  static V set1(float x) { return _mm256_set1_ps(x); }
  static V load(const float* p) { return _mm256_loadu_ps(p); }
  static V load(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
  static V load(const Half* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static V load(const Half* p, int n) { return _mm256_cvtph_ps(partial(p, n)); }
  static V load(const BFloat* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static V load(const BFloat* p, int n) { return widen(partial(p, n)); }
  static void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static void store(float* p, V v, int n) { _mm256_maskstore_ps(p, first(n), v); }
  static void store(Half* p, V v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, 0)); }
  static void store(Half* p, V v, int n) { partial(p, _mm256_cvtps_ph(v, 0), n); }
  static void store(BFloat* p, V v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(v)); }
  static void store(BFloat* p, V v, int n) { partial(p, narrow(v), n); }
  // Past the caches, for arrays larger than they are: p is aligned to the stored vector, `fence` before others read.
  static void stream(float* p, V v) { _mm256_stream_ps(p, v); }
  static void stream(Half* p, V v) { stream(p, _mm256_cvtps_ph(v, 0)); }
  static void stream(BFloat* p, V v) { stream(p, narrow(v)); }
  static void fence() { _mm_sfence(); }

  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static V max(V a, V b) { return _mm256_max_ps(a, b); }
  static V min(V a, V b) { return _mm256_min_ps(a, b); }
  static V abs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static V sign(V a) {
    const V one = _mm256_or_ps(_mm256_and_ps(a, _mm256_set1_ps(-0.0f)), _mm256_set1_ps(1.0f));
    return _mm256_and_ps(_mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_NEQ_OQ), one);
  }
  static V sqrt(V v) { return _mm256_sqrt_ps(v); }
  // Keeps a loaded vector in its register: the compiler would fold the load into each multiply-add that uses it.
  static V pin(V v) {
    asm("" : "+x"(v));
    return v;
  }
  // rows[i][j] <-> rows[j][i]: pairs of elements, pairs of those, then halves of a register.
  static void transpose(V (&rows)[lanes]) {
    V t[lanes];
#pragma GCC unroll 4
    for (int i = 0; i < lanes; i += 2) {
      t[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < lanes; i += 4) {
      rows[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      rows[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
      rows[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      rows[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const V low = rows[i], high = rows[i + 4];
      rows[i] = _mm256_permute2f128_ps(low, high, 0x20);
      rows[i + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
  }
  static float sum(V v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
  }
  static float largest(V v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
  }
  static unsigned greater(V a, V b) { return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ))); }
  static VI set1(Int x) { return _mm256_set1_epi32(x); }
  static VI load(const Int* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store(Int* p, VI v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static VI from(Int first) { return _mm256_add_epi32(set1(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
  static Mask all() { return _mm256_set1_epi32(-1); }
  static Mask differs(const Int* p, Int id) { return _mm256_xor_si256(_mm256_cmpeq_epi32(load(p), set1(id)), _mm256_set1_epi32(-1)); }
  // Where `allowed`, a score above the best takes its place; with kTies, one that equals it and has a lower index too.
  template <bool kTies>
  static void keep_larger(Mask allowed, V score, VI index, V& best, VI& best_index) {
    VI wins = _mm256_castps_si256(_mm256_cmp_ps(score, best, _CMP_GT_OQ));
    if constexpr (kTies) {
      const VI equal = _mm256_castps_si256(_mm256_cmp_ps(score, best, _CMP_EQ_OQ));
      wins = _mm256_or_si256(wins, _mm256_and_si256(equal, _mm256_cmpgt_epi32(best_index, index)));
    }
    wins = _mm256_and_si256(wins, allowed);
    best = _mm256_blendv_ps(best, score, _mm256_castsi256_ps(wins));
    best_index = _mm256_blendv_epi8(best_index, index, wins);
  }
  // Puts s among sorted scores, after its equals; the last is dropped.
  static void insert_sorted(V s, VI index, V& scores, VI& indices) {
    const VI up = _mm256_setr_epi32(0, 0, 1, 2, 3, 4, 5, 6);
    const VI here = _mm256_castps_si256(_mm256_cmp_ps(s, scores, _CMP_GT_OQ));
    const VI after = _mm256_blend_epi32(_mm256_permutevar8x32_epi32(here, up), _mm256_setzero_si256(), 1);
    const V moved = _mm256_permutevar8x32_ps(scores, up);
    scores = _mm256_blendv_ps(_mm256_blendv_ps(scores, s, _mm256_castsi256_ps(here)), moved, _mm256_castsi256_ps(after));
    indices = _mm256_blendv_epi8(_mm256_blendv_epi8(indices, index, here), _mm256_permutevar8x32_epi32(indices, up), after);
  }

 private:
  template <class S>
  static __m128i partial(const S* p, int n) {
    alignas(16) S buffer[lanes] = {};
    std::memcpy(buffer, p, static_cast<std::size_t>(n) * sizeof(S));
    return _mm_load_si128(reinterpret_cast<const __m128i*>(buffer));
  }
  template <class S>
  static void partial(S* p, __m128i bits, int n) {
    alignas(16) S buffer[lanes];
    _mm_store_si128(reinterpret_cast<__m128i*>(buffer), bits);
    std::memcpy(p, buffer, static_cast<std::size_t>(n) * sizeof(S));
  }
  template <class S>
  static void stream(S* p, __m128i bits) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), bits);
  }
  static V widen(__m128i bits) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)); }
  static __m128i narrow(V v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff)), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
  }
};

template <>
struct Simd<double> {
  using V = __m256d;
  using Int = std::int64_t;
  using VI = __m256i;
  using Mask = __m256i;
  static constexpr int lanes = 4;
  static __m256i first(int n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }

  static V zero() { return _mm256_setzero_pd(); }
  static V set1(double x) { return _mm256_set1_pd(x); }
  static V load(const double* p) { return _mm256_loadu_pd(p); }
  static V load(const double* p, int n) { return _mm256_maskload_pd(p, first(n)); }
  static void store(double* p, V v) { _mm256_storeu_pd(p, v); }
  static void store(double* p, V v, int n) { _mm256_maskstore_pd(p, first(n), v); }
  static void stream(double* p, V v) { _mm256_stream_pd(p, v); }
  static void fence() { _mm_sfence(); }

  static V fma(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
  static V max(V a, V b) { return _mm256_max_pd(a, b); }
  static V min(V a, V b) { return _mm256_min_pd(a, b); }
  static V abs(V a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }
  static V sign(V a) {
    const V one = _mm256_or_pd(_mm256_and_pd(a, _mm256_set1_pd(-0.0)), _mm256_set1_pd(1.0));
    return _mm256_and_pd(_mm256_cmp_pd(a, _mm256_setzero_pd(), _CMP_NEQ_OQ), one);
  }
  static V sqrt(V v) { return _mm256_sqrt_pd(v); }
  static V pin(V v) {
    asm("" : "+x"(v));
    return v;
  }
  static void transpose(V (&rows)[lanes]) {
    const V a = _mm256_unpacklo_pd(rows[0], rows[1]), b = _mm256_unpackhi_pd(rows[0], rows[1]);
    const V c = _mm256_unpacklo_pd(rows[2], rows[3]), d = _mm256_unpackhi_pd(rows[2], rows[3]);
    rows[0] = _mm256_permute2f128_pd(a, c, 0x20);
    rows[1] = _mm256_permute2f128_pd(b, d, 0x20);
    rows[2] = _mm256_permute2f128_pd(a, c, 0x31);
    rows[3] = _mm256_permute2f128_pd(b, d, 0x31);
  }
  static double sum(V v) {
    const __m128d x = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)));
  }
  static double largest(V v) {
    const __m128d x = _mm_max_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_max_sd(x, _mm_unpackhi_pd(x, x)));
  }
  static unsigned greater(V a, V b) { return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ))); }
  static VI set1(Int x) { return _mm256_set1_epi64x(x); }
  static VI load(const Int* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store(Int* p, VI v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static VI from(Int first) { return _mm256_add_epi64(set1(first), _mm256_setr_epi64x(0, 1, 2, 3)); }
  static Mask all() { return _mm256_set1_epi32(-1); }
  static Mask differs(const Int* p, Int id) { return _mm256_xor_si256(_mm256_cmpeq_epi64(load(p), set1(id)), _mm256_set1_epi32(-1)); }
  // Where `allowed`, a score above the best takes its place; with kTies, one that equals it and has a lower index too.
  template <bool kTies>
  static void keep_larger(Mask allowed, V score, VI index, V& best, VI& best_index) {
    VI wins = _mm256_castpd_si256(_mm256_cmp_pd(score, best, _CMP_GT_OQ));
    if constexpr (kTies) {
      const VI equal = _mm256_castpd_si256(_mm256_cmp_pd(score, best, _CMP_EQ_OQ));
      wins = _mm256_or_si256(wins, _mm256_and_si256(equal, _mm256_cmpgt_epi64(best_index, index)));
    }
    wins = _mm256_and_si256(wins, allowed);
    best = _mm256_blendv_pd(best, score, _mm256_castsi256_pd(wins));
    best_index = _mm256_blendv_epi8(best_index, index, wins);
  }
  static void insert_sorted(V s, VI index, V& scores, VI& indices) {
    constexpr int up = 0x90;  // lanes 0, 0, 1, 2
    const VI here = _mm256_castpd_si256(_mm256_cmp_pd(s, scores, _CMP_GT_OQ));
    const VI after = _mm256_blend_epi32(_mm256_permute4x64_epi64(here, up), _mm256_setzero_si256(), 3);
    const V moved = _mm256_permute4x64_pd(scores, up);
    scores = _mm256_blendv_pd(_mm256_blendv_pd(scores, s, _mm256_castsi256_pd(here)), moved, _mm256_castsi256_pd(after));
    indices = _mm256_blendv_epi8(_mm256_blendv_epi8(indices, index, here), _mm256_permute4x64_epi64(indices, up), after);
  }
};
