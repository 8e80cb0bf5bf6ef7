"""What every room leans on: errors, typed configs, atomic files, locks, fault points, compatibility."""
