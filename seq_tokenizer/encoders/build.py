"""Image -> ordered tokens. In both encoders token i is a function of the image and of tokens < i alone.

So encoding with fewer queries gives exactly the first tokens of the whole sequence. Positions of patches are
fixed sine-cosine features of unit scale, in patches from the corner: other sizes and shapes of picture can be
encoded. Query embeddings start at std 1: at the usual 0.02 they drown in the content.

Shapes: B images, N patches, p patch size, K queries, W width.
Sources: TiTok (Yu et al. 2024, arXiv:2406.07550); Q-Former (BLIP-2, Li et al. 2023, arXiv:2301.12597).
"""

from __future__ import annotations

from torch import nn

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.encoders.qformer import QFormerEncoder
from seq_tokenizer.encoders.titok import TitokEncoder


def build_encoder(config: TokenizerConfig) -> nn.Module:
    return TitokEncoder(config) if config.encoder == "titok" else QFormerEncoder(config)
