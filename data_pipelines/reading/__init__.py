"""Shards -> batches, the same for any number of ranks, workers and resumes."""
