"""`seqtok doctor`: what this machine has and lacks for seqtok, each finding with the way out."""
