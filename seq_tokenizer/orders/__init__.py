"""What makes the latents ordered: prefix.py, the learned order, in which every prefix must be a picture.

An order that is given instead (raster, spiral, from the corners) is a permutation of patch positions: a file beside
prefix.py that maps (rows, columns) to it, and an encoder whose tokens are patches, which lays them out by it.
"""
