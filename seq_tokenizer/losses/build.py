"""The terms of the objective by name. A new one is a file beside this one, its settings and its line below."""

from __future__ import annotations

from typing import Any

from torch import nn

from seq_tokenizer.losses.adversary import AdversaryConfig, AdversaryTerm
from seq_tokenizer.losses.agreement import AgreementConfig, AgreementTerm
from seq_tokenizer.losses.base import Term
from seq_tokenizer.losses.contrast import ContrastConfig, ContrastTerm
from seq_tokenizer.losses.generative import GenerativeConfig, GenerativeTerm
from seq_tokenizer.losses.match import MatchConfig, MatchTerm
from seq_tokenizer.losses.perceptual import PerceptualConfig, PerceptualTerm
from seq_tokenizer.losses.pixels import PixelsConfig, PixelsTerm
from seq_tokenizer.losses.teacher import TeacherConfig, TeacherTerm
from seq_tokenizer.losses.write import WriteConfig, WriteTerm
from seq_tokenizer.tokenizer import SeqTokenizer
from seqtok_core.foundation.config import Config


class LossesConfig(Config):
    """Each term's settings under its name; null leaves it out."""

    pixels: PixelsConfig | None = PixelsConfig()
    contrast: ContrastConfig | None = ContrastConfig()
    write: WriteConfig | None = None
    generative: GenerativeConfig | None = GenerativeConfig()
    match: MatchConfig | None = None
    adversary: AdversaryConfig | None = None
    agreement: AgreementConfig | None = None
    perceptual: PerceptualConfig | None = None
    teacher: TeacherConfig | None = None


TERMS: dict[str, type[Any]] = {
    "pixels": PixelsTerm,
    "contrast": ContrastTerm,
    "write": WriteTerm,
    "generative": GenerativeTerm,
    "match": MatchTerm,
    "adversary": AdversaryTerm,
    "agreement": AgreementTerm,
    "perceptual": PerceptualTerm,
    "teacher": TeacherTerm,
}


def build_terms(config: LossesConfig, tokenizer: SeqTokenizer) -> nn.ModuleDict:
    """The terms that `config` asks for, in the order of TERMS, without those that need what a tokenizer has not: a text
    tower beside an encoder that is trained, pictures in training, or a decoder with a loss of its own."""
    taught = any(parameter.requires_grad for parameter in tokenizer.encoder.parameters())
    with_text, generative = taught and tokenizer.text is not None, tokenizer.decoder.generative
    terms: dict[str, Term] = {}
    for name, term in TERMS.items():
        settings = getattr(config, name)
        missing = (
            (term.needs_text and not with_text)
            or (term.needs_pictures and generative)
            or (term.needs_decoder_loss and not generative)
        )
        if settings is not None and not missing:
            terms[name] = term(settings, tokenizer.config)
    return nn.ModuleDict(terms)
