"""The roof of seqtok: commands, run configs, wiring, and the judge of the order (evaluation)."""
