"""The format on disk: dataset.json, shard files, and sets of them, ours and foreign."""
