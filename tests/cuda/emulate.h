// The CUDA sources as plain C++, to test their logic without a GPU: a block's threads are fibers that run one after another, each until it
// meets a barrier or a warp shuffle; shared memory is static. A missing barrier then shows as a wrong result, since a fiber runs ahead of
// its neighbours, and a barrier that not all threads reach as an error. There is no memory model and no parallelism: races that need either
// are not found.
#pragma once

#include <immintrin.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define SIAMESE_FAST_LAUNCH(kernel, grid, threads, stream, ...) \
  (static_cast<void>(stream), emulate::launch(grid, threads, [&] { (kernel)(__VA_ARGS__); }))

struct Index {
  unsigned x = 0;
};
inline Index blockIdx, threadIdx;

struct float4 {
  float x, y, z, w;
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719 };

struct __half {
  std::uint16_t bits;
};
struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline float __half2float(__half x) { return _cvtsh_ss(x.bits); }
inline __half __float2half_rn(float x) { return {static_cast<std::uint16_t>(_cvtss_sh(x, 0))}; }
inline float __bfloat162float(__nv_bfloat16 x) {
  const std::uint32_t bits = std::uint32_t(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

namespace emulate {

constexpr std::size_t kStack = 1 << 16;
enum class State { kReady, kBarrier, kShuffle, kDone };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  State state = State::kReady;
  int line = 0;  // of the barrier it waits at
  double offered = 0;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline cudaError_t last_error = cudaSuccess;

inline void wait(State state, int line = 0) {
  Fiber& mine = fibers[threadIdx.x];
  mine.state = state;
  mine.line = line;
  const Index self = threadIdx;
  swapcontext(&mine.context, &scheduler);
  threadIdx = self;
}

inline void enter() {
  body();
  fibers[threadIdx.x].state = State::kDone;
  setcontext(&scheduler);
}

// Releases the threads [begin, end) if all of them wait at the same point.
inline bool release(std::size_t begin, std::size_t end, State state) {
  for (std::size_t t = begin; t < end; ++t)
    if (fibers[t].state != state || fibers[t].line != fibers[begin].line) return false;
  for (std::size_t t = begin; t < end; ++t) fibers[t].state = State::kReady;
  return true;
}

// Whether the block ran to its end; not if some threads wait for others that never come.
inline bool run_block(unsigned threads) {
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.state = State::kReady;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (;;) {
    for (unsigned t = 0; t < threads; ++t) {
      if (fibers[t].state != State::kReady) continue;
      threadIdx.x = t;
      swapcontext(&scheduler, &fibers[t].context);
    }
    bool moved = release(0, threads, State::kBarrier);
    for (unsigned warp = 0; warp < threads; warp += 32) moved |= release(warp, warp + 32, State::kShuffle);
    if (moved) continue;
    for (unsigned t = 0; t < threads; ++t)
      if (fibers[t].state != State::kDone) return false;
    return true;
  }
}

inline void launch(unsigned grid, unsigned threads, std::function<void()> kernel) {
  if (fibers.size() < threads) fibers = std::vector<Fiber>(threads);
  body = std::move(kernel);
  for (unsigned block = 0; block < grid; ++block) {
    blockIdx.x = block;
    if (!run_block(threads)) {
      last_error = cudaErrorLaunchFailure;
      return;
    }
  }
}

}  // namespace emulate

#define __syncthreads() emulate::wait(emulate::State::kBarrier, __LINE__)

template <class T>
inline T __shfl_xor_sync(unsigned, T value, int mask) {
  const unsigned own = threadIdx.x;
  emulate::fibers[own].offered = static_cast<double>(value);
  emulate::wait(emulate::State::kShuffle);
  const T found = static_cast<T>(emulate::fibers[own ^ static_cast<unsigned>(mask)].offered);
  emulate::wait(emulate::State::kShuffle);
  return found;
}

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = emulate::last_error;
  emulate::last_error = cudaSuccess;
  return error;
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? "a barrier that not all threads reached" : "an invalid launch";
}
