// The native entry points: pointers and sizes in, nothing of torch. Each call releases the GIL.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "cpu/isa.h"
#include "memory.h"

namespace py = pybind11;
using namespace siamese_fast;

namespace {

using Address = std::uintptr_t;

template <class T = void>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

using Index = const std::int64_t;

// The memory of a large tensor, kept for another one when the tensor is gone.
struct Output {
  explicit Output(std::size_t size) : bytes(size), data(take_output(size)) {}
  ~Output() { give_output(data); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  std::size_t bytes;
  void* data;
};

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "CPU kernels of siamese_fast: addresses and sizes in, see csrc/params.h for what each argument is.";
  const py::call_guard<py::gil_scoped_release> nogil;

  m.def("instruction_set", [] { return std::string(kernels().name); });
  m.def("instruction_sets", &instruction_sets);
  m.def("use_instruction_set", &use_instruction_set);
  py::class_<Output>(m, "Output", py::buffer_protocol()).def(py::init<std::size_t>()).def_buffer([](Output& o) {
    return py::buffer_info(static_cast<std::uint8_t*>(o.data), static_cast<py::ssize_t>(o.bytes));
  });
  m.def("release_kept_memory", &release_kept_memory);

  m.def(
      "l1_similarity",
      [](int dtype, int threads, std::int64_t rows, std::int64_t depth, Address h1, Address h2, Address weight, Address bias,
         Address logits) {
        kernels().l1_similarity({{Dtype(dtype), threads}, rows, depth, at(h1), at(h2), at(weight), at(bias), at(logits)});
      },
      nogil);
  m.def(
      "l1_similarity_backward",
      [](int dtype, int threads, std::int64_t rows, std::int64_t depth, Address grad, Address h1, Address h2, Address weight,
         Address grad_h1, Address grad_h2, Address grad_weight, Address grad_bias) {
        kernels().l1_similarity_backward({{Dtype(dtype), threads},
                                          rows,
                                          depth,
                                          at(grad),
                                          at(h1),
                                          at(h2),
                                          at(weight),
                                          at(grad_h1),
                                          at(grad_h2),
                                          at(grad_weight),
                                          at(grad_bias)});
      },
      nogil);
  m.def(
      "l1_similarity_bce",
      [](int dtype, int threads, int reduction, double pos_weight, std::int64_t rows, std::int64_t depth, Address h1, Address h2,
         Address weight, Address bias, Address target, Address loss, Address residual) {
        kernels().l1_similarity_bce({{Dtype(dtype), threads},
                                     rows,
                                     depth,
                                     at(h1),
                                     at(h2),
                                     at(weight),
                                     at(bias),
                                     at(target),
                                     pos_weight,
                                     Reduction(reduction),
                                     at(loss),
                                     at(residual)});
      },
      nogil);
  m.def(
      "l1_similarity_bce_grad",
      [](int dtype, int threads, int reduction, double pos_weight, std::int64_t rows, std::int64_t depth, Address h1, Address h2,
         Address weight, Address bias, Address target, Address loss, Address grad_h1, Address grad_h2, Address grad_weight,
         Address grad_bias) {
        kernels().l1_similarity_bce_grad({{Dtype(dtype), threads},
                                          rows,
                                          depth,
                                          at(h1),
                                          at(h2),
                                          at(weight),
                                          at(bias),
                                          at(target),
                                          pos_weight,
                                          Reduction(reduction),
                                          at(loss),
                                          at(grad_h1),
                                          at(grad_h2),
                                          at(grad_weight),
                                          at(grad_bias)});
      },
      nogil);
  m.def(
      "distance",
      [](int dtype, int threads, int metric, std::int64_t rows, std::int64_t depth, Address x, Address y, Address distances) {
        kernels().distance({{Dtype(dtype), threads}, Metric(metric), rows, depth, at(x), at(y), at(distances)});
      },
      nogil);
  m.def(
      "distance_backward",
      [](int dtype, int threads, int metric, std::int64_t rows, std::int64_t depth, Address grad, Address x, Address y, Address distances,
         Address grad_x, Address grad_y) {
        kernels().distance_backward(
            {{Dtype(dtype), threads}, Metric(metric), rows, depth, at(grad), at(x), at(y), at(distances), at(grad_x), at(grad_y)});
      },
      nogil);
  m.def(
      "triplet_loss",
      [](int dtype, int threads, int metric, int hinge, int reduction, double margin, bool zero_positive, std::int64_t count,
         std::int64_t depth, std::int64_t x_rows, std::int64_t table_rows, Address x, Address positive_table, Address negative_table,
         Address anchor, Address positive, Address negative, Address loss, Address d_ap, Address d_an, Address scale) {
        kernels().triplet_loss({{Dtype(dtype), threads},
                                Metric(metric),
                                Hinge(hinge),
                                Reduction(reduction),
                                margin,
                                zero_positive,
                                count,
                                depth,
                                x_rows,
                                table_rows,
                                at(x),
                                at(positive_table),
                                at(negative_table),
                                at<Index>(anchor),
                                at<Index>(positive),
                                at<Index>(negative),
                                at(loss),
                                at(d_ap),
                                at(d_an),
                                at(scale)});
      },
      nogil);
  m.def(
      "triplet_loss_backward",
      [](int dtype, int threads, int metric, int hinge, double margin, bool zero_positive, std::int64_t count, std::int64_t depth,
         std::int64_t x_rows, std::int64_t table_rows, bool one_grad, Address grad, Address x, Address positive_table,
         Address negative_table, Address d_ap, Address d_an, Address anchor, Address positive, Address negative, Address grad_x,
         Address grad_table, Address grad_positive, Address grad_negative) {
        kernels().triplet_loss_backward({{Dtype(dtype), threads},
                                         Metric(metric),
                                         Hinge(hinge),
                                         margin,
                                         zero_positive,
                                         count,
                                         depth,
                                         x_rows,
                                         table_rows,
                                         one_grad,
                                         at(grad),
                                         at(x),
                                         at(positive_table),
                                         at(negative_table),
                                         at(d_ap),
                                         at(d_an),
                                         at<Index>(anchor),
                                         at<Index>(positive),
                                         at<Index>(negative),
                                         at(grad_x),
                                         at(grad_table),
                                         at(grad_positive),
                                         at(grad_negative)});
      },
      nogil);
  m.def(
      "matrix",
      [](int dtype, int threads, int metric, bool exact, std::int64_t rows, std::int64_t columns, std::int64_t depth, Address x, Address y,
         Address weight, Address bias, Address out) {
        kernels().matrix(
            {{Dtype(dtype), threads}, Metric(metric), exact, rows, columns, depth, at(x), at(y), at(weight), at(bias), at(out)});
      },
      nogil);
  m.def(
      "matrix_backward",
      [](int dtype, int threads, int metric, std::int64_t rows, std::int64_t columns, std::int64_t depth, Address grad, Address x,
         Address y, Address weight, Address distances, Address grad_x, Address grad_y, Address grad_weight, Address grad_bias) {
        kernels().matrix_backward({{Dtype(dtype), threads},
                                   Metric(metric),
                                   rows,
                                   columns,
                                   depth,
                                   at(grad),
                                   at(x),
                                   at(y),
                                   at(weight),
                                   at(distances),
                                   at(grad_x),
                                   at(grad_y),
                                   at(grad_weight),
                                   at(grad_bias)});
      },
      nogil);
  m.def(
      "hardest_pairs",
      [](int dtype, int threads, int metric, bool self, std::int64_t rows, std::int64_t ref_rows, std::int64_t depth, Address x,
         Address ref, Address labels, Address ref_labels, Address self_index, Address positive, Address negative) {
        kernels().hardest_pairs({{Dtype(dtype), threads},
                                 Metric(metric),
                                 self,
                                 rows,
                                 ref_rows,
                                 depth,
                                 at(x),
                                 at(ref),
                                 at<Index>(labels),
                                 at<Index>(ref_labels),
                                 at<Index>(self_index),
                                 at<std::int64_t>(positive),
                                 at<std::int64_t>(negative)});
      },
      nogil);
  m.def("packed_bytes", [](int dtype, int metric, std::int64_t supports, std::int64_t depth) {
    return kernels().packed_bytes({{Dtype(dtype), 1}, Metric(metric), supports, depth, nullptr, nullptr});
  });
  m.def(
      "pack_support",
      [](int dtype, int threads, int metric, std::int64_t supports, std::int64_t depth, Address s, Address packed) {
        kernels().pack_support({{Dtype(dtype), threads}, Metric(metric), supports, depth, at(s), at(packed)});
      },
      nogil);
  m.def(
      "nearest_support",
      [](int dtype, int threads, int metric, std::int64_t queries, std::int64_t supports, std::int64_t depth, std::int64_t k, Address q,
         Address s, Address packed, Address weight, Address bias, Address scores, Address indices) {
        kernels().nearest_support({{Dtype(dtype), threads},
                                   Metric(metric),
                                   queries,
                                   supports,
                                   depth,
                                   k,
                                   at(q),
                                   at(s),
                                   at(packed),
                                   at(weight),
                                   at(bias),
                                   at(scores),
                                   at<std::int64_t>(indices)});
      },
      nogil);
  m.def(
      "class_scores",
      [](int dtype, int threads, int metric, bool mean, std::int64_t queries, std::int64_t supports, std::int64_t depth,
         std::int64_t classes, Address q, Address s, Address weight, Address bias, Address class_index, Address scores) {
        kernels().class_scores({{Dtype(dtype), threads},
                                Metric(metric),
                                mean,
                                queries,
                                supports,
                                depth,
                                classes,
                                at(q),
                                at(s),
                                at(weight),
                                at(bias),
                                at<Index>(class_index),
                                at(scores)});
      },
      nogil);
  m.def(
      "probe",
      [](int mix, int threads, std::int64_t count, std::int64_t streams, Address from, Address to) {
        kernels().probe({Mix(mix), threads, count, streams, at(from), at(to)});
      },
      nogil);
  m.def("probe_elements", [](int mix) { return kernels().probe_elements(Mix(mix)); });
  m.def(
      "pair_loss",
      [](int dtype, int threads, int formula, int metric, bool self, std::array<double, 4> parameter, std::int64_t rows,
         std::int64_t ref_rows, std::int64_t depth, Address x, Address ref, Address labels, Address ref_labels, Address self_index,
         int relation, std::int64_t words, bool ignores, std::int64_t ignore_label, Address losses, Address counts, Address statistics) {
        kernels().pair_loss({{{Dtype(dtype), threads},
                              PairFormula(formula),
                              Metric(metric),
                              self,
                              {parameter[0], parameter[1], parameter[2], parameter[3]},
                              rows,
                              ref_rows,
                              depth,
                              at(x),
                              at(ref),
                              at<Index>(labels),
                              at<Index>(ref_labels),
                              at<Index>(self_index),
                              Relation(relation),
                              words,
                              ignores,
                              ignore_label},
                             at(losses),
                             at(counts),
                             at(statistics)});
      },
      nogil);
  m.def(
      "pair_loss_visit",
      [](int dtype, int threads, int formula, int metric, bool self, std::array<double, 4> parameter, std::int64_t rows,
         std::int64_t ref_rows, std::int64_t depth, Address x, Address ref, Address labels, Address ref_labels, Address self_index,
         int relation, std::int64_t words, bool ignores, std::int64_t ignore_label, int sweep, Address fields) {
        kernels().pair_loss_visit({{{Dtype(dtype), threads},
                                    PairFormula(formula),
                                    Metric(metric),
                                    self,
                                    {parameter[0], parameter[1], parameter[2], parameter[3]},
                                    rows,
                                    ref_rows,
                                    depth,
                                    at(x),
                                    at(ref),
                                    at<Index>(labels),
                                    at<Index>(ref_labels),
                                    at<Index>(self_index),
                                    Relation(relation),
                                    words,
                                    ignores,
                                    ignore_label},
                                   sweep,
                                   at(fields)});
      },
      nogil);
  m.def(
      "pair_loss_backward",
      [](int dtype, int threads, int formula, int metric, bool self, std::array<double, 4> parameter, std::int64_t rows,
         std::int64_t ref_rows, std::int64_t depth, Address x, Address ref, Address labels, Address ref_labels, Address self_index,
         int relation, std::int64_t words, bool ignores, std::int64_t ignore_label, Address grad, Address statistics, Address grad_x,
         Address grad_ref) {
        kernels().pair_loss_backward({{{Dtype(dtype), threads},
                                       PairFormula(formula),
                                       Metric(metric),
                                       self,
                                       {parameter[0], parameter[1], parameter[2], parameter[3]},
                                       rows,
                                       ref_rows,
                                       depth,
                                       at(x),
                                       at(ref),
                                       at<Index>(labels),
                                       at<Index>(ref_labels),
                                       at<Index>(self_index),
                                       Relation(relation),
                                       words,
                                       ignores,
                                       ignore_label},
                                      at(grad),
                                      at(statistics),
                                      at(grad_x),
                                      at(grad_ref)});
      },
      nogil);
  const auto triplets = [](auto kernel) {
    return [kernel](int dtype, int threads, int metric, bool self, double margin, int hinge, std::int64_t rows, std::int64_t ref_rows,
                    std::int64_t depth, Address x, Address ref, Address labels, Address ref_labels, Address self_index, int relation,
                    std::int64_t words, bool ignores, std::int64_t ignore_label, Address weight, Address losses, Address counts,
                    Address sums, Address grad_x, Address grad_ref) {
      (kernels().*kernel)({{{Dtype(dtype), threads},
                            PairFormula(0),
                            Metric(metric),
                            self,
                            {margin},
                            rows,
                            ref_rows,
                            depth,
                            at(x),
                            at(ref),
                            at<Index>(labels),
                            at<Index>(ref_labels),
                            at<Index>(self_index),
                            Relation(relation),
                            words,
                            ignores,
                            ignore_label},
                           at(weight),
                           at(losses),
                           at(counts),
                           at(sums),
                           at(grad_x),
                           at(grad_ref),
                           Hinge(hinge)});
    };
  };
  m.def("batch_all", triplets(&Kernels::batch_all), nogil);
  m.def("semi_hard", triplets(&Kernels::semi_hard), nogil);
  m.def(
      "ranked_pairs",
      [](int dtype, int threads, int metric, bool self, std::int64_t rows, std::int64_t ref_rows, std::int64_t depth, Address x,
         Address ref, Address labels, Address ref_labels, Address self_index, int relation, std::int64_t words, bool ignores,
         std::int64_t ignore_label, std::int64_t positives, std::int64_t negatives, bool easy, bool beyond, Address positive,
         Address negative) {
        kernels().ranked_pairs({{{Dtype(dtype), threads},
                                 PairFormula(0),
                                 Metric(metric),
                                 self,
                                 {},
                                 rows,
                                 ref_rows,
                                 depth,
                                 at(x),
                                 at(ref),
                                 at<Index>(labels),
                                 at<Index>(ref_labels),
                                 at<Index>(self_index),
                                 Relation(relation),
                                 words,
                                 ignores,
                                 ignore_label},
                                positives,
                                negatives,
                                easy,
                                beyond,
                                at<std::int64_t>(positive),
                                at<std::int64_t>(negative)});
      },
      nogil);
}
