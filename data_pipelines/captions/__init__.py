"""Captions: cleaned (clean), cut into levels (sentences), turned into ids (tokenizer), their words known (words)."""
