"""Heads: from a hidden state to the next latent, one file each."""
