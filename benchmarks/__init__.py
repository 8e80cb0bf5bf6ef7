"""Programs that measure: speed, and what the order is worth. Their results lie in benchmarks/results."""
