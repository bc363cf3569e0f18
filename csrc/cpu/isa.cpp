#include "isa.h"

#include <cstdlib>
#include <stdexcept>

namespace siamese_fast {
namespace {

std::vector<const Kernels*> available() {
  std::vector<const Kernels*> sets = {&kScalarKernels};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#if defined(SIAMESE_FAST_EMULATION)
  if (avx2) sets.push_back(&kEmulated16Kernels);
#endif
  if (avx2) sets.push_back(&kAvx2Kernels);
  if (avx512) sets.push_back(&kAvx512Kernels);
#endif
  return sets;
}

const Kernels* find(const std::string& name) {
  std::string accepted;
  for (const Kernels* set : available()) {
    if (name == set->name) return set;
    accepted += (accepted.empty() ? "" : ", ") + std::string(set->name);
  }
  throw std::invalid_argument("instruction set '" + name + "' does not run here; accepted: " + accepted);
}

const Kernels*& current() {
  static const Kernels* set = [] {
    const char* wanted = std::getenv("SIAMESE_FAST_ISA");
    return wanted != nullptr && *wanted != '\0' ? find(wanted) : available().back();
  }();
  return set;
}

}  // namespace

const Kernels& kernels() { return *current(); }

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* set : available()) names.emplace_back(set->name);
  return names;
}

void use_instruction_set(const std::string& name) { current() = find(name); }

}  // namespace siamese_fast
