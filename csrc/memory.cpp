#include "memory.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace siamese_fast {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeeps = false;  // the sanitizer sees the end of a block only once it is freed
#else
constexpr bool kKeeps = true;
#endif
constexpr std::size_t kSmall = 1 << 16, kLarge = 1 << 22;  // what malloc serves without the kernel's help; what huge pages pay for
constexpr std::align_val_t kAlign{64};

// Stands in the cache line before the block.
struct alignas(64) Header {
  std::size_t bytes;
};

void* block_of(Header* header) { return header + 1; }
Header* header_of(void* block) { return static_cast<Header*>(block) - 1; }

// Advice on the whole pages of `size` bytes in a block.
void advise(Header* header, std::uintptr_t size, int advice) noexcept {
#if defined(__linux__)
  const auto address = reinterpret_cast<std::uintptr_t>(header);
  const std::uintptr_t first = (address + sizeof(Header) + size - 1) / size * size,
                       last = (address + sizeof(Header) + header->bytes) / size * size;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, advice);
#else
  static_cast<void>(header), static_cast<void>(size), static_cast<void>(advice);
#endif
}

#if defined(__linux__)
constexpr int kUseHugePages = MADV_HUGEPAGE, kTakeWhenNeeded = MADV_FREE;
#else
constexpr int kUseHugePages = 0, kTakeWhenNeeded = 0;
#endif
constexpr std::uintptr_t kHugePage = 1 << 21;

// Advice rounds up to whole pages: with a page too small it would reach past the block.
std::uintptr_t page_size() {
#if defined(__linux__)
  static const auto size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  return size;
#else
  return 1;
#endif
}

Header* allocate(std::size_t bytes) {
  auto* header = new (::operator new(sizeof(Header) + bytes, kAlign)) Header{bytes};
  if (bytes >= kLarge) advise(header, kHugePage, kUseHugePages);
  return header;
}

void release(Header* header) noexcept { ::operator delete(header, kAlign); }

// Blocks that nobody uses, oldest first, few enough to look through. A thread that finds another one inside does without, so that a process
// which was forked at that moment does not wait for ever.
class Pool {
 public:
  // With `lendable`, the system may take the pages of kept blocks when it runs short of memory.
  Pool(std::size_t most, bool lendable) : most_(kKeeps ? most : 0), lendable_(lendable) {}

  // The smallest kept block that serves without wasting more than half of itself, or a new one.
  void* take(std::size_t bytes) {
    Header* header = bytes < kSmall ? nullptr : find(bytes);
    return block_of(header != nullptr ? header : allocate(bytes));
  }

  void give(Header* header) noexcept {
    if (lendable_ && header->bytes <= most_) advise(header, page_size(), kTakeWhenNeeded);
    if (header->bytes < kSmall || !keep(header)) release(header);
  }

  std::size_t empty() noexcept {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    const std::size_t bytes = lock.owns_lock() ? total_ : 0;
    while (lock.owns_lock() && count_ > 0) release(remove(0));
    return bytes;
  }

 private:
  Header* find(std::size_t bytes) {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return nullptr;
    std::size_t best = count_;
    for (std::size_t i = 0; i < count_; ++i)
      if (kept_[i]->bytes >= bytes && kept_[i]->bytes / 2 <= bytes && (best == count_ || kept_[i]->bytes < kept_[best]->bytes)) best = i;
    return best == count_ ? nullptr : remove(best);
  }

  // Whether the block is kept; older ones make room.
  bool keep(Header* header) noexcept {
    if (header->bytes > most_) return false;
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    while (count_ == kept_.size() || total_ + header->bytes > most_) release(remove(0));
    kept_[count_++] = header;
    total_ += header->bytes;
    return true;
  }

  Header* remove(std::size_t i) noexcept {
    Header* header = kept_[i];
    std::copy(kept_.begin() + i + 1, kept_.begin() + count_, kept_.begin() + i);
    --count_;
    total_ -= header->bytes;
    return header;
  }

  std::mutex mutex_;
  std::array<Header*, 64> kept_{};
  std::size_t most_, count_ = 0, total_ = 0;
  bool lendable_;
};

// Never destroyed: a daemon thread may still compute while the process ends.
Pool& scratch() {
  static Pool* const pool = new Pool(kKeptScratch, false);
  return *pool;
}

Pool& outputs() {
  static Pool* const pool = new Pool(kKeptOutputs, true);
  return *pool;
}

}  // namespace

void* take_scratch(std::size_t bytes) { return scratch().take(bytes); }
void give_scratch(void* block) noexcept { scratch().give(header_of(block)); }
void* take_output(std::size_t bytes) { return outputs().take(bytes); }

void give_output(void* block) noexcept { outputs().give(header_of(block)); }

std::size_t release_kept_memory() noexcept { return scratch().empty() + outputs().empty(); }

}  // namespace siamese_fast
