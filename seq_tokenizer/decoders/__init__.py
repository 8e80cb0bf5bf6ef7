"""Latents -> image."""
