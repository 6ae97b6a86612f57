"""The version, apart so that it can be read without importing Numba."""

__version__ = "0.1.0"
