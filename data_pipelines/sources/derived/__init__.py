"""Sources made of sources: some samples of one, several as one, one in another order."""
