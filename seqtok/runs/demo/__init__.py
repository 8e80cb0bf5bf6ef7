"""The whole way in one command: its settings, and the steps that it goes."""
