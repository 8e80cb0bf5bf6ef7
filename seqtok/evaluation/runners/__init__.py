"""From models and held-out data to sections of results.json, one file a question."""
