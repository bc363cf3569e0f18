// Memory that outlives a call. The page faults of fresh memory cost more than the arithmetic of most kernels, so what is given back is kept
// for the next call: scratch of the kernels, and large tensors that they returned.
#pragma once

#include <cstddef>

namespace siamese_fast {

// Bytes that are kept at most. Kept outputs are marked so that the system takes their pages when it runs short of memory.
constexpr std::size_t kKeptScratch = std::size_t(64) << 20, kKeptOutputs = std::size_t(1) << 30;

// Blocks aligned to a cache line, on huge pages where they are large. Any thread may call; throw std::bad_alloc.
void* take_scratch(std::size_t bytes);
void give_scratch(void* block) noexcept;
void* take_output(std::size_t bytes);
void give_output(void* block) noexcept;

// Gives everything that is kept back to the system; returns how many bytes that were.
std::size_t release_kept_memory() noexcept;

}  // namespace siamese_fast
