"""Tokenizer and sequence model in one training: each shapes the other."""
