"""Capacity: how many characters of a drawn page a code holds."""
