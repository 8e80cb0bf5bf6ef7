"""The judge at work: what is asked for on the command line, made of models and data, shown and written down."""
