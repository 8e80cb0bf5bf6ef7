"""Tests of seqtok.runs.generators."""
