"""Tars as bytes: their index, a walk that survives damage, streams, writing, remote addresses."""
