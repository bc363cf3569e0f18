// The entry points of the CUDA half, a module of its own: it imports without a driver, and a launch that fails returns the error's number.
#include <pybind11/pybind11.h>

#include <string>

#include "l1_similarity.h"

namespace py = pybind11;
using namespace siamese_fast::cuda;

namespace {

using Address = std::uintptr_t;

template <class T = void>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

void check(int error) {
  if (error != 0) throw std::runtime_error("CUDA error " + std::to_string(error) + ": " + error_name(error));
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of siamese_fast: addresses and sizes in, see csrc/cuda/l1_similarity.h for what each argument is.";
  m.def("backward_blocks", &backward_blocks);
  m.def("pair_blocks", &pair_blocks);
  m.def("l1_similarity_matrix", [](int storage, Address stream, std::int64_t queries, std::int64_t supports, std::int64_t depth, Address q,
                                   Address s, Address weight, Address bias, Address out) {
    check(l1_similarity_matrix(Storage(storage),
                               {queries, supports, depth, at(q), at(s), at<const float>(weight), at<const float>(bias), at<float>(out)},
                               at(stream)));
  });
  m.def("l1_similarity_matrix_backward",
        [](int storage, Address stream, std::int64_t queries, std::int64_t supports, std::int64_t depth, Address grad, Address q, Address s,
           Address weight, Address centre, Address grad_q, Address grad_s, Address partial_q, Address partial_s) {
          check(l1_similarity_matrix_backward(Storage(storage),
                                              {queries, supports, depth, at<const float>(grad), at(q), at(s), at<const float>(weight),
                                               at<const float>(centre), at(grad_q), at(grad_s), at<float>(partial_q), at<float>(partial_s)},
                                              at(stream)));
        });
  m.def("l1_similarity_pairs", [](int storage, int mode, Address stream, std::int64_t rows, std::int64_t depth, Address h1, Address h2,
                                  Address weight, Address bias, Address grad, Address target, float pos_weight, float share, Address logits,
                                  Address each, Address residual, Address sums, Address grad_h1, Address grad_h2, Address partial) {
    check(l1_similarity_pairs(Storage(storage), PairMode(mode),
                              {rows, depth, at(h1), at(h2), at<const float>(weight), at<const float>(bias), at<const float>(grad),
                               at<const float>(target), pos_weight, share, at<float>(logits), at<float>(each), at<float>(residual),
                               at<double>(sums), at(grad_h1), at(grad_h2), at<float>(partial)},
                              at(stream)));
  });
}
