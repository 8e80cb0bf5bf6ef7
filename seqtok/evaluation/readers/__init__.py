"""What readers have in common: how they are trained and kept, and what pictures suffer meanwhile."""
