"""Sequence models: of pictures with their captions, and of documents."""
