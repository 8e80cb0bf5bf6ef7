"""Images to ordered 1-D sequences of continuous latents, and back."""

from seq_tokenizer.config import TextConfig, TokenizerConfig, TokenizerTrainingConfig
from seq_tokenizer.latents import LatentSpec
from seq_tokenizer.objective import TokenizerObjective
from seq_tokenizer.tokenizer import SeqTokenizer

__all__ = [
    "LatentSpec",
    "SeqTokenizer",
    "TextConfig",
    "TokenizerConfig",
    "TokenizerObjective",
    "TokenizerTrainingConfig",
]
