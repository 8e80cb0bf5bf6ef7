"""What a tokenizer makes of pictures and captions, as files: config.py says what, run.py does it."""
