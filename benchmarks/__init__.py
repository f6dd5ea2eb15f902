"""Benchmarks that anyone can run again: `make bench-attacks`, or one file by `python -m`."""
