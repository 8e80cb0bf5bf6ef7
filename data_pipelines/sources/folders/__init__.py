"""Folders: which files of one belong together, pictures with what lies beside them, and reading none outside it."""
