"""What a run writes down about itself: environment, metrics, progress, summary."""
