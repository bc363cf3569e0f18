// Rows grouped by label: members of class c are member[start[c]] .. member[start[c + 1] - 1], ascending.
class Classes {
 public:
  Classes(const int64_t* labels, int64_t rows)
      : id(rows), member(rows), start(rows + 1), label(rows), slots_(slot_count(rows)), table_(slots_) {
    std::fill(table_.get(), table_.get() + slots_, -1);
    Buffer<int64_t> next(rows + 1);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = slot(labels[i]);
      if (table_[at] < 0) {
        label[count] = labels[i];
        next[count] = 0;
        table_[at] = static_cast<int32_t>(count++);
      }
      id[i] = table_[at];
      ++next[id[i]];
    }
    start[0] = 0;
    for (int64_t c = 0; c < count; ++c) {
      start[c + 1] = start[c] + next[c];
      next[c] = start[c];
    }
    for (int64_t i = 0; i < rows; ++i) member[next[id[i]]++] = i;
  }

  // The class of a label, or -1.
  int32_t find(int64_t value) const { return table_[slot(value)]; }

  int64_t count = 0;
  Buffer<int32_t> id;
  Buffer<int64_t> member, start, label;

 private:
  static int64_t slot_count(int64_t rows) {
    int64_t slots = 16;
    while (slots < 2 * rows) slots *= 2;
    return slots;
  }
  // Open addressing: where `value` is, or the free slot where it belongs.
  int64_t slot(int64_t value) const {
    const std::uint64_t mixed = static_cast<std::uint64_t>(value) * 0x9e3779b97f4a7c15u;  // the top bits depend on every bit
    int64_t at = static_cast<int64_t>(mixed >> (64 - __builtin_ctzll(static_cast<unsigned long long>(slots_))));
    while (table_[at] >= 0 && label[table_[at]] != value) at = (at + 1) & (slots_ - 1);
    return at;
  }
  int64_t slots_;
  Buffer<int32_t> table_;
};
