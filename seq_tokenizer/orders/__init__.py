"""What makes the latents ordered."""
