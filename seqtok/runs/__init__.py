"""Kinds of run: their settings, what they build, what a finished one leaves."""
