"""`seqtok data`."""
