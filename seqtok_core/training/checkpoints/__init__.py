"""A run's state on disk, complete or absent: writing, reading, and what it must agree with."""
