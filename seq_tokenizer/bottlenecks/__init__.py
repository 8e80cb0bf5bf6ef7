"""What a latent may carry."""
