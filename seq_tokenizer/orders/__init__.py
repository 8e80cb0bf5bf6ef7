"""What makes the latents ordered: prefix.py, the learned order, in which every prefix must be a picture; grid.py,
orders that are given instead, each a permutation of the cells of a grid, by which encoders/grid.py lays out its tokens.

A given order is the same for every picture. One per picture would have to travel with the latents: out of encode and
into decode, through latent folders and into the sequence model, none of which has a place for it.
"""
