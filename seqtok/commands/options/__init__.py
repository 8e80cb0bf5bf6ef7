"""What several commands ask for, once: options that they share, and flags made from settings."""
