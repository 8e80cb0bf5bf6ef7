"""Processes and devices: launch, collectives, stopping together, watching for stalls."""
