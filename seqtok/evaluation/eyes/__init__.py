"""Neutral eyes: networks that no contestant was trained on and that were never shown what a contestant drew."""
