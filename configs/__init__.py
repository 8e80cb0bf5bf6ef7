"""The shipped configs; each file begins with its command, its cost and what to expect."""
