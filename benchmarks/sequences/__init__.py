"""Benchmarks of sequence models beyond one text and one picture."""
