// Uninitialised scratch of a kernel, aligned to a cache line; see memory.h for what becomes of it.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_(static_cast<T*>(take_scratch(static_cast<std::size_t>(count) * sizeof(T) + 64))) {}
  ~Buffer() { give_scratch(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
