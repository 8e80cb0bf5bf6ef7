"""README.md of a saved tokenizer: what it is, in the words that the hub and a stranger expect."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.latents import LatentSpec


def model_card(config: TokenizerConfig, spec: LatentSpec, weights: Mapping[str, Tensor]) -> str:
    parameters = sum(tensor.numel() for tensor in weights.values())
    text = f"{config.text.layers} layers of width {config.text.width}" if config.text else "none"
    return f"""---
library_name: seqtok
pipeline_tag: feature-extraction
---
# Tokenizer of seqtok

An image becomes {spec.length} ordered tokens of {spec.dim} channels; any prefix of them is an image.

| | |
| --- | --- |
| parameters | {parameters / 1e6:.2f} M |
| pictures | {config.image_size} px in patches of {config.patch_size} |
| encoder | {config.encoder}, {config.encoder_layers} layers of width {config.width} |
| decoder | {config.decoder}, {config.decoder_layers} layers |
| text tower | {text} |
| tokenizer id | `{spec.tokenizer_id}` |

```python
from seq_tokenizer import SeqTokenizer

tokenizer = SeqTokenizer.from_pretrained("this folder")
latents = tokenizer.encode(images)         # images (B, 3, H, W) in [-1, 1] -> (B, {spec.length}, {spec.dim})
preview = tokenizer.decode(latents[:, :4])  # any prefix is an image
```
"""
