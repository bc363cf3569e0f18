"""The C++ CPU kernels: each file allocates outputs and hands addresses and sizes to the extension."""
