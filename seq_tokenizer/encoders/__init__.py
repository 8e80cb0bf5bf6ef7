"""Image -> latents before the bottleneck."""
