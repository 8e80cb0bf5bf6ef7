"""DeepSpeed behind one face; the only folder that imports it."""
