"""Images to ordered 1-D sequences of continuous latents, and back.

The way of a batch, with the file of each step:
1. tokenizer.py, SeqTokenizer.encode: encoders/patches.py cuts the pixels, encoders/titok.py or encoders/qformer.py
   reads them into K tokens, of which each knows only earlier ones; bottlenecks/rms.py narrows them to D channels.
   Instead, encoders/grid.py ties tokens to cells in a given order (orders/grid.py), or gives a grid of features that
   bottlenecks/pyramid.py makes scales of.
2. decoders/pixel.py draws the picture from any prefix, decoders/flow.py one of those that the prefix may mean; missing
   tokens are absent vectors (orders/prefix.py).
3. text/readout.py turns every prefix into a vector in the space of text/tower.py.
4. objective.py draws a prefix length per image, decodes it and the whole once, and adds up the terms of losses/.
5. latents.py, LatentSpec: what a sequence model must know of these latents; prefixes.py does whole sets.
shape.py holds the sizes that all parts share, config.py which part is of which kind. A new kind is a file in its folder
and its lines in that folder's build.py.
"""

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.latents import LatentSpec
from seq_tokenizer.objective import TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.text.tower import TextConfig
from seq_tokenizer.tokenizer import SeqTokenizer

__all__ = [
    "LatentSpec",
    "SeqTokenizer",
    "TextConfig",
    "TokenizerConfig",
    "TokenizerObjective",
    "TokenizerTrainingConfig",
]
