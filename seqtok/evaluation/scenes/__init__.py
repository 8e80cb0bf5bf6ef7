"""Judging drawn scenes: the reader, what it reads against what was asked."""
