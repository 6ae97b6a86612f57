"""Benchmarks of adjoint_rd against what else a user would pick; `python validation/bench/run.py --help`."""
