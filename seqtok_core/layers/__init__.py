"""Pure mathematics of the models: no settings objects, no devices, no files."""
