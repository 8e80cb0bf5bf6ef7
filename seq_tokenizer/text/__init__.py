"""Text beside the latents: the tower, what it is compared with, and the losses."""
