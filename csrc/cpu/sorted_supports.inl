// Supports sorted by class (stable): support order[n] is the n-th; class c holds start[c] .. start[c + 1] - 1.
struct SortedSupports {
  SortedSupports(const int64_t* class_index, int64_t supports, int64_t classes) : order(supports), start(classes + 1), sorted(supports) {
    std::fill(start.get(), start.get() + classes + 1, int64_t(0));
    for (int64_t j = 0; j < supports; ++j) {
      if (class_index[j] < 0 || class_index[j] >= classes) throw std::out_of_range("class_index out of range");
      ++start[class_index[j] + 1];
    }
    for (int64_t c = 0; c < classes; ++c) start[c + 1] += start[c];
    Buffer<int64_t> next(classes + 1);
    std::copy(start.get(), start.get() + classes + 1, next.get());
    for (int64_t j = 0; j < supports; ++j) {
      const int64_t at = next[class_index[j]]++;
      order[at] = j;
      sorted[at] = class_index[j];
    }
  }
  Buffer<int64_t> order, start;
  Buffer<int64_t> sorted;  // the class of each, in order
};

// Rows only, since a class's sum has one order of additions and its best is found at its end; few tasks, since each packs the supports.
template <class Form, class T>
Split class_tasks(const ClassScores& p) {
  Split tasks = split<Form, T>(p.queries, 1, p.depth, 1);
  tasks.row_step = std::min(tasks.row_step, round_up((p.queries + p.threads - 1) / p.threads, Form::rows));
  tasks.row_tasks = (p.queries + tasks.row_step - 1) / tasks.row_step;
  tasks.column_step = p.supports;
  tasks.column_tasks = 1;
  return tasks;
}
