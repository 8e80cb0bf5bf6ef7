"""Which drawing fits its prompt best, by the tokenizer's own text space or by an open_clip model.

Shapes: B drawings, k latents of D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ar_model import SeqGenerator
from ar_model.sampling import Score, SearchConfig
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all, text_match
from seq_tokenizer.text.pretrained import PicturesAndTexts
from seqtok_core.foundation.errors import ConfigError


def prompt_score(
    generator: SeqGenerator,
    tokenizer: SeqTokenizer,
    prompts: str | Sequence[str],
    search: SearchConfig,
    verifier: str | Path | None = None,
) -> Score | None:
    """`verifier`: an open_clip model, by folder or hub id; None: the tokenizer's own text space. None where nothing is
    chosen. Raises ConfigError where the tokenizer was trained without captions, where there is no such model, and where
    a verifier has nothing to choose from."""
    if not search.chooses:
        if verifier is not None:
            raise ConfigError(f"verifier={verifier}: nothing to choose from; draw several candidates")
        return None
    if verifier is not None:
        return _by_pictures(PicturesAndTexts(str(verifier)), tokenizer, prompts)
    if tokenizer.config.text is None:
        raise ConfigError(
            f"candidates={search.candidates}, beams={search.beams}: this tokenizer was trained without captions and "
            "cannot say which drawing fits a prompt; draw one of each, or name an open_clip model (--verifier)"
        )
    limit = tokenizer.config.text.context - 1
    return text_match(tokenizer, generator.encode_prompts(prompts)[:, :limit])


def _by_pictures(model: PicturesAndTexts, tokenizer: SeqTokenizer, prompts: str | Sequence[str]) -> Score:
    """Cosine of the decoded picture and the prompt: a prefix is judged by its picture."""
    model.to(tokenizer.device)
    texts = model.of_texts(prompts)

    @torch.no_grad()
    def score(latents: Tensor) -> Tensor:
        pictures = decode_all(tokenizer, latents, latents.shape[1])
        return (model.of_pictures(pictures) * texts).sum(1)

    return score
