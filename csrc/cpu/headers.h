// Every standard header that a kernel needs, included before any target pragma: a template of the standard library that was compiled for
// AVX-512 could otherwise be the copy that the linker keeps for the whole program.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../memory.h"
#include "isa.h"
