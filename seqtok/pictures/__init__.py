"""Pictures that a user asks for: samples of prompts, reconstructions of files."""
