"""Image-text data: sources, shards, loaders, caption tokens. Imports neither torch.nn nor DeepSpeed."""
