"""Images to ordered 1-D sequences of continuous latents, and back."""

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
