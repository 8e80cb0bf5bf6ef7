"""Suites: contestants trained and judged side by side, each a process of its own."""
