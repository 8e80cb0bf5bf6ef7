"""The ground floor of seqtok: foundation (errors, files), layers (mathematics), training (DeepSpeed)."""
