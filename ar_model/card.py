"""What a sequence model is, in numbers and words: its weights counted, README.md of its folder."""

from __future__ import annotations

import torch

from ar_model.backbone import Backbone
from ar_model.config import GeneratorConfig
from ar_model.heads.base import NoHead
from ar_model.heads.build import build_head
from ar_model.sequences.build import build_sequence
from seq_tokenizer.latents import LatentSpec


def parameter_count(config: GeneratorConfig, vocab_size: int, spec: LatentSpec) -> int:
    """Weights of such a model over such latents, without room for them."""
    with torch.device("meta"):
        sequence = build_sequence(config.sequence, config.width, spec)
        head = NoHead() if sequence.denoises else build_head(config.head, config.width, spec)
        parts = (Backbone(config, vocab_size, spec.length, spec.dim), head, sequence)
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def model_card(config: GeneratorConfig, spec: LatentSpec, vocab_size: int, parameters: int) -> str:
    """README.md of the model folder, in the words that the hub and a stranger expect."""
    head = config.head
    return f"""---
library_name: seqtok
pipeline_tag: text-to-image
---
# Sequence model of seqtok

Text becomes ordered image latents: {spec.length} tokens of {spec.dim} channels.
Any prefix of them is an image.

| | |
| --- | --- |
| parameters | {parameters / 1e6:.2f} M |
| Transformer | {config.depth} layers of width {config.width}, {config.heads} heads |
| head | {head.kind}, {head.depth} layers of width {head.width} |
| vocabulary | {vocab_size} sentencepiece tokens |
| latents of tokenizer | `{spec.tokenizer_id}` |

```python
from ar_model import SeqGenerator

generator = SeqGenerator.from_pretrained("this folder")
latents = generator.sample(["a prompt in the words of the training captions"], guidance=3.0, seed=0)
captions = generator.caption(latents)  # where the model was trained both ways
```
The latents become pictures with the tokenizer named above, and with no other one.
"""
