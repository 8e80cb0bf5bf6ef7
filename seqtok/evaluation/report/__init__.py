"""Numbers and pictures -> one HTML file."""
