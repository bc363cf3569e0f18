#include "memory.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace siamese_fast {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kKept = 0;  // the sanitizer sees the end of a block only once it is freed
#else
constexpr std::size_t kKept = kKeptScratch;
#endif
constexpr std::size_t kSmall = 1 << 16, kLarge = 1 << 22;  // what malloc serves without the kernel's help; what huge pages pay for
constexpr std::align_val_t kAlign{64};

// Stands in the cache line before the block.
struct alignas(64) Header {
  std::size_t bytes;
};

void* block_of(Header* header) { return header + 1; }
Header* header_of(void* block) { return static_cast<Header*>(block) - 1; }

Header* allocate(std::size_t bytes) {
  void* memory = ::operator new(sizeof(Header) + bytes, kAlign);
  if (bytes >= kLarge) use_huge_pages(memory, sizeof(Header) + bytes);
  return new (memory) Header{bytes};
}

void release(Header* header) noexcept { ::operator delete(header, kAlign); }

// Blocks that nobody uses, oldest first, few enough to look through. A thread that finds another one inside does without, so that a process
// which was forked at that moment does not wait for ever.
class Pool {
 public:
  // The smallest kept block that serves without wasting more than half of itself, or null.
  Header* take(std::size_t bytes) {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return nullptr;
    std::size_t best = count_;
    for (std::size_t i = 0; i < count_; ++i)
      if (kept_[i]->bytes >= bytes && kept_[i]->bytes / 2 <= bytes && (best == count_ || kept_[i]->bytes < kept_[best]->bytes)) best = i;
    return best == count_ ? nullptr : remove(best);
  }

  // Whether the block is kept; older ones make room.
  bool keep(Header* header) {
    if (header->bytes > kKept) return false;
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    while (count_ == kept_.size() || total_ + header->bytes > kKept) release(remove(0));
    kept_[count_++] = header;
    total_ += header->bytes;
    return true;
  }

 private:
  Header* remove(std::size_t i) {
    Header* header = kept_[i];
    std::copy(kept_.begin() + i + 1, kept_.begin() + count_, kept_.begin() + i);
    --count_;
    total_ -= header->bytes;
    return header;
  }

  std::mutex mutex_;
  std::array<Header*, 64> kept_{};
  std::size_t count_ = 0, total_ = 0;
};

Pool& pool() {
  static Pool* const pool = new Pool;  // never destroyed: a daemon thread may still compute while the process ends
  return *pool;
}

}  // namespace

void* take_scratch(std::size_t bytes) {
  Header* header = bytes < kSmall ? nullptr : pool().take(bytes);
  return block_of(header != nullptr ? header : allocate(bytes));
}

void give_scratch(void* block) noexcept {
  Header* header = header_of(block);
  if (header->bytes < kSmall || !pool().keep(header)) release(header);
}

void use_huge_pages(void* begin, std::size_t bytes) noexcept {
#if defined(__linux__)
  constexpr std::uintptr_t page = std::uintptr_t(1) << 21;
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const std::uintptr_t first = (address + page - 1) / page * page, last = (address + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  static_cast<void>(begin), static_cast<void>(bytes);
#endif
}

}  // namespace siamese_fast
