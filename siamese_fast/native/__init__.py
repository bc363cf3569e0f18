"""The C++ CPU kernels: one file an operation that allocates the outputs and hands addresses and sizes to the extension."""
