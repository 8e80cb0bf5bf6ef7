"""Benchmarks of the data room."""
