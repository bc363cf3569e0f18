"""The Triton kernels: each file allocates outputs and launches; imported when first needed, never with the
package.
"""
