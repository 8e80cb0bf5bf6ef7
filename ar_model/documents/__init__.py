"""Several texts and pictures in turns in one sequence."""
