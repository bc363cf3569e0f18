// AVX-512 (F, BW, VL, DQ). Included inside the namespace of one instruction set, under its target pragma.
//
//   instruction          Zen 4 (per cycle)   Skylake-X (per cycle)
//   vfmadd zmm           1                   2 (two units), 1 on smaller parts
//   vaddps/vsubps zmm    1                   2
//   vmaxps zmm           1                   2
//   vandps zmm           2                   2 (ports 0, 5)
//   load zmm             1                   2
//   vfixupimmps zmm      1                   1

template <class T>
struct Simd;

template <>
struct Simd<float> {
  using V = __m512;
  using Int = std::int32_t;
  using VI = __m512i;
  using Mask = __mmask16;
  static constexpr int lanes = 16;
  static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

  static V zero() { return _mm512_setzero_ps(); }
  static V set1(float x) { return _mm512_set1_ps(x); }
  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static V load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static V load(const Half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static V load(const Half* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p)); }
  static V load(const BFloat* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static V load(const BFloat* p, int n) { return widen(_mm256_maskz_loadu_epi16(first(n), p)); }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, V v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }
  static void store(Half* p, V v) { store(p, v, lanes); }
  static void store(Half* p, V v, int n) {
    _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static void store(BFloat* p, V v) { store(p, v, lanes); }
  static void store(BFloat* p, V v, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow(v)); }
  // Past the caches, for arrays larger than they are: p is aligned to the stored vector, `fence` before others read.
  static void stream(float* p, V v) { _mm512_stream_ps(p, v); }
  static void stream(Half* p, V v) { stream(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
  static void stream(BFloat* p, V v) { stream(p, narrow(v)); }
  static void fence() { _mm_sfence(); }

  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V max(V a, V b) { return _mm512_max_ps(a, b); }
  static V min(V a, V b) { return _mm512_min_ps(a, b); }
  static V abs(V a) { return _mm512_abs_ps(a); }
  static V sign(V a) { return _mm512_fixupimm_ps(a, a, _mm512_set1_epi32(static_cast<int>(0xA9A9A888u)), 0); }
  static V sqrt(V v) { return _mm512_sqrt_ps(v); }
  // Keeps a loaded vector in its register: the compiler would fold the load into each multiply-add that uses it.
  static V pin(V v) {
    asm("" : "+v"(v));
    return v;
  }
  // rows[i][j] <-> rows[j][i]: pairs of elements, pairs of those, then quarters of a register.
  static void transpose(V (&rows)[lanes]) {
    V t[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes; i += 2) {
      t[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < lanes; i += 4) {
      rows[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
      rows[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
      rows[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      rows[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const V low = _mm512_shuffle_f32x4(rows[i], rows[i + 4], 0x88), high = _mm512_shuffle_f32x4(rows[i], rows[i + 4], 0xdd);
      const V low2 = _mm512_shuffle_f32x4(rows[i + 8], rows[i + 12], 0x88), high2 = _mm512_shuffle_f32x4(rows[i + 8], rows[i + 12], 0xdd);
      t[i] = _mm512_shuffle_f32x4(low, low2, 0x88);
      t[i + 4] = _mm512_shuffle_f32x4(high, high2, 0x88);
      t[i + 8] = _mm512_shuffle_f32x4(low, low2, 0xdd);
      t[i + 12] = _mm512_shuffle_f32x4(high, high2, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) rows[i] = t[i];
  }
  static float sum(V v) { return _mm512_reduce_add_ps(v); }
  static float largest(V v) { return _mm512_reduce_max_ps(v); }
  static unsigned greater(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static VI set1(Int x) { return _mm512_set1_epi32(x); }
  static VI load(const Int* p) { return _mm512_loadu_si512(p); }
  static void store(Int* p, VI v) { _mm512_storeu_si512(p, v); }
  static VI from(Int first) {
    return _mm512_add_epi32(set1(first), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  }
  static Mask all() { return static_cast<Mask>(-1); }
  static Mask differs(const Int* p, Int id) { return _mm512_cmpneq_epi32_mask(load(p), set1(id)); }
  // Where `allowed`, a score above the best takes its place; with kTies, one that equals it and has a lower index too.
  template <bool kTies>
  static void keep_larger(Mask allowed, V score, VI index, V& best, VI& best_index) {
    Mask wins = _mm512_mask_cmp_ps_mask(allowed, score, best, _CMP_GT_OQ);
    if constexpr (kTies) {
      const Mask equal = _mm512_mask_cmp_ps_mask(allowed, score, best, _CMP_EQ_OQ);
      wins = static_cast<Mask>(wins | _mm512_mask_cmplt_epi32_mask(equal, index, best_index));
    }
    best = _mm512_mask_mov_ps(best, wins, score);
    best_index = _mm512_mask_mov_epi32(best_index, wins, index);
  }
  // Puts s among sorted scores, after its equals; the last is dropped.
  static void insert_sorted(V s, VI index, V& scores, VI& indices) {
    const Mask here = _mm512_cmp_ps_mask(s, scores, _CMP_GT_OQ), after = static_cast<Mask>(here << 1);
    const V moved = _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(scores), _mm512_castps_si512(scores), 15));
    scores = _mm512_mask_mov_ps(_mm512_mask_mov_ps(scores, here, s), after, moved);
    indices = _mm512_mask_mov_epi32(_mm512_mask_mov_epi32(indices, here, index), after, _mm512_alignr_epi32(indices, indices, 15));
  }

 private:
  template <class S>
  static void stream(S* p, __m256i bits) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), bits);
  }
  static V widen(__m256i bits) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)); }
  static __m256i narrow(V v) {
    const __m512i bits = _mm512_castps_si512(v), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff)), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0)));
  }
};

template <>
struct Simd<double> {
  using V = __m512d;
  using Int = std::int64_t;
  using VI = __m512i;
  using Mask = __mmask8;
  static constexpr int lanes = 8;
  static __mmask8 first(int n) { return static_cast<__mmask8>((1u << n) - 1u); }

  static V zero() { return _mm512_setzero_pd(); }
  static V set1(double x) { return _mm512_set1_pd(x); }
  static V load(const double* p) { return _mm512_loadu_pd(p); }
  static V load(const double* p, int n) { return _mm512_maskz_loadu_pd(first(n), p); }
  static void store(double* p, V v) { _mm512_storeu_pd(p, v); }
  static void store(double* p, V v, int n) { _mm512_mask_storeu_pd(p, first(n), v); }
  static void stream(double* p, V v) { _mm512_stream_pd(p, v); }
  static void fence() { _mm_sfence(); }

  static V fma(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
  static V max(V a, V b) { return _mm512_max_pd(a, b); }
  static V min(V a, V b) { return _mm512_min_pd(a, b); }
  static V abs(V a) { return _mm512_abs_pd(a); }
  static V sign(V a) { return _mm512_fixupimm_pd(a, a, _mm512_set1_epi64(0xA9A9A888), 0); }
  static V sqrt(V v) { return _mm512_sqrt_pd(v); }
  static V pin(V v) {
    asm("" : "+v"(v));
    return v;
  }
  static void transpose(V (&rows)[lanes]) {
    V t[lanes];
#pragma GCC unroll 4
    for (int i = 0; i < lanes; i += 2) {
      t[i] = _mm512_unpacklo_pd(rows[i], rows[i + 1]);
      t[i + 1] = _mm512_unpackhi_pd(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const V low = _mm512_shuffle_f64x2(t[i], t[i + 2], 0x88), high = _mm512_shuffle_f64x2(t[i], t[i + 2], 0xdd);
      const V low2 = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0x88), high2 = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0xdd);
      rows[i] = _mm512_shuffle_f64x2(low, low2, 0x88);
      rows[i + 2] = _mm512_shuffle_f64x2(high, high2, 0x88);
      rows[i + 4] = _mm512_shuffle_f64x2(low, low2, 0xdd);
      rows[i + 6] = _mm512_shuffle_f64x2(high, high2, 0xdd);
    }
  }
  static double sum(V v) { return _mm512_reduce_add_pd(v); }
  static double largest(V v) { return _mm512_reduce_max_pd(v); }
  static unsigned greater(V a, V b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
  static VI set1(Int x) { return _mm512_set1_epi64(x); }
  static VI load(const Int* p) { return _mm512_loadu_si512(p); }
  static void store(Int* p, VI v) { _mm512_storeu_si512(p, v); }
  static VI from(Int first) { return _mm512_add_epi64(set1(first), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7)); }
  static Mask all() { return static_cast<Mask>(-1); }
  static Mask differs(const Int* p, Int id) { return _mm512_cmpneq_epi64_mask(load(p), set1(id)); }
  // Where `allowed`, a score above the best takes its place; with kTies, one that equals it and has a lower index too.
  template <bool kTies>
  static void keep_larger(Mask allowed, V score, VI index, V& best, VI& best_index) {
    Mask wins = _mm512_mask_cmp_pd_mask(allowed, score, best, _CMP_GT_OQ);
    if constexpr (kTies) {
      const Mask equal = _mm512_mask_cmp_pd_mask(allowed, score, best, _CMP_EQ_OQ);
      wins = static_cast<Mask>(wins | _mm512_mask_cmplt_epi64_mask(equal, index, best_index));
    }
    best = _mm512_mask_mov_pd(best, wins, score);
    best_index = _mm512_mask_mov_epi64(best_index, wins, index);
  }
  // Puts s among sorted scores, after its equals; the last is dropped.
  static void insert_sorted(V s, VI index, V& scores, VI& indices) {
    const Mask here = _mm512_cmp_pd_mask(s, scores, _CMP_GT_OQ), after = static_cast<Mask>(here << 1);
    const V moved = _mm512_castsi512_pd(_mm512_alignr_epi64(_mm512_castpd_si512(scores), _mm512_castpd_si512(scores), 7));
    scores = _mm512_mask_mov_pd(_mm512_mask_mov_pd(scores, here, s), after, moved);
    indices = _mm512_mask_mov_epi64(_mm512_mask_mov_epi64(indices, here, index), after, _mm512_alignr_epi64(indices, indices, 7));
  }
};
