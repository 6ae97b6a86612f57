"""Numba kernels: a model's scalar functions bound into loop nests over the grid."""
