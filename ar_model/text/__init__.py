"""Text of the sequence model: prompts that it reads, captions that it writes, and how well the two fit pictures."""
