"""How text and latents become one sequence: slots, mask, positions, targets."""
