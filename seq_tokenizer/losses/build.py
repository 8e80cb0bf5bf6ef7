"""The terms of the objective by name. A new one is a file beside this one, its settings and its line below."""

from __future__ import annotations

from typing import Any

from torch import nn

from seq_tokenizer.losses.base import Term
from seq_tokenizer.losses.contrast import ContrastConfig, ContrastTerm
from seq_tokenizer.losses.generative import GenerativeConfig, GenerativeTerm
from seq_tokenizer.losses.pixels import PixelsConfig, PixelsTerm
from seqtok_core.foundation.config import Config


class LossesConfig(Config):
    """Each term's settings under its name; null leaves it out."""

    pixels: PixelsConfig | None = PixelsConfig()
    contrast: ContrastConfig | None = ContrastConfig()
    generative: GenerativeConfig | None = GenerativeConfig()


TERMS: dict[str, type[Any]] = {"pixels": PixelsTerm, "contrast": ContrastTerm, "generative": GenerativeTerm}


def build_terms(config: LossesConfig, with_text: bool, generative: bool = False) -> nn.ModuleDict:
    """The terms that `config` asks for, in the order of TERMS, without those that need what a tokenizer has not:
    a text tower, pictures in training or (`generative`) a decoder with a loss of its own."""
    terms: dict[str, Term] = {}
    for name, term in TERMS.items():
        settings = getattr(config, name)
        missing = (
            (term.needs_text and not with_text)
            or (term.needs_pictures and generative)
            or (term.needs_decoder_loss and not generative)
        )
        if settings is not None and not missing:
            terms[name] = term(settings)
    return nn.ModuleDict(terms)
