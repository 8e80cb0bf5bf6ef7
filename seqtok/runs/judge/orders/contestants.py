"""The orders that are held against each other, each as changes to the same two configs: `key=value` words.

Of the same size, with the same decoder and the same number of tokens; only what makes the order differs. A contestant
without text has none anywhere: no tower, no writer, no term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seqtok.evaluation.ordering.table import FIXED

_NO_TEXT = ("model.text=null", "model.writer=null", "objective.write=null", "objective.contrast=null")


@dataclass(frozen=True)
class Contestant:
    """`says`: in a table. `taught`: whether captions took part in its tokenizer's training. `together`: changes to one
    training of both models, which stands in place of the two, one after the other. `afterwards`: changes to the
    sequence model's own training where one follows it, from its weights, on latents that no longer move."""

    says: str
    tokenizer: Sequence[str] = ()
    generator: Sequence[str] = ()
    taught: bool = False
    together: Sequence[str] | None = None
    afterwards: Sequence[str] | None = None


def _late(length: int, levels: int) -> tuple[str, ...]:
    """Every level is owed by all tokens together and by no shorter prefix."""
    starts = "[" + ",".join([str(length)] * levels) + "]"
    return f"objective.contrast.level_starts={starts}", f"model.writer.level_starts={starts}"


def contestants(length: int, starts: Sequence[int]) -> dict[str, Contestant]:
    """By name, for tokenizers of `length` tokens whose config owes its caption levels from `starts` on."""
    late = _late(length, len(starts))
    backwards = "[" + ",".join(map(str, reversed(starts))) + "]"
    found = {
        "text_on_every_prefix": Contestant("coarse captions from the first token on, finer ones later", taught=True),
        "text_on_all_tokens": Contestant("captions of all tokens together; prefixes are pictures", late, taught=True),
        "text_on_last_token": Contestant(
            "captions of the last token alone (SEED); prefixes are pictures",
            (late[0], "model.readout=last", "model.writer=null", "objective.write=null"),
            taught=True,
        ),
        "reversed_pyramid": Contestant(
            "fine captions from the first token on, coarse ones later",
            (f"objective.contrast.level_starts={backwards}", f"model.writer.level_starts={backwards}"),
            taught=True,
        ),
        "nested": Contestant("prefixes are pictures; no text", _NO_TEXT),
        "no_nesting": Contestant("no prefixes, no text", (*_NO_TEXT, "objective.nested=false")),
        "scales": Contestant(
            "residual pyramid of continuous latents, scale after scale (VAR without a codebook)",
            (*_NO_TEXT, "model.encoder.kind=grid", "model.bottleneck={kind: pyramid}"),
            ("model.sequence={kind: scales}",),
        ),
        "vq": Contestant(
            "learned order of 4,096 codes, nested, no text",
            (*_NO_TEXT, "model.bottleneck={kind: vq, codebook_size: 4096}"),
            ("model.head={kind: categorical}",),
        ),
    }
    for order in FIXED:
        words = (*_NO_TEXT, "model.encoder.kind=grid", f"model.encoder.order={order}")
        found[order] = Contestant(f"cells in the order {order}; no text", words)
    return found
