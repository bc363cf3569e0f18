// Memory of the kernels: scratch that outlives a call, and huge pages.
#pragma once

#include <cstddef>

namespace siamese_fast {

// Scratch aligned to a cache line. A block that is given back is kept for the next call, up to kKeptScratch bytes in all: the page faults
// of fresh memory cost more than the arithmetic on it. Any thread may call; throws std::bad_alloc.
constexpr std::size_t kKeptScratch = std::size_t(64) << 20;
void* take_scratch(std::size_t bytes);
void give_scratch(void* block) noexcept;

// Asks for 2 MB pages under an array that is about to be written for the first time: the faults of 4 KiB pages cost five times the write
// itself.
void use_huge_pages(void* begin, std::size_t bytes) noexcept;

}  // namespace siamese_fast
