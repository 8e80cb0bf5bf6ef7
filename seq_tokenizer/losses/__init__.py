"""What a tokenizer is trained for, one file per term of the objective."""
