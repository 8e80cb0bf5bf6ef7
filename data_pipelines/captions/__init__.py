"""Captions: cleaned (clean), cut into levels (sentences), turned into ids (tokenizer)."""
