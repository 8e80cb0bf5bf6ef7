"""Sizes of the demo, apart from what it does."""

from __future__ import annotations

from typing import Literal

from seqtok.evaluation.runners.captions import CaptionEvaluation
from seqtok.evaluation.runners.generation import GenerationConfig
from seqtok.evaluation.scenes.prefix_truth import PrefixTruthConfig
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.runs.settings import Count
from seqtok_core.foundation.config import Config


class DemoConfig(Config):
    """Sizes of the demo. The two training configs are named, their folders are set by the demo."""

    kind: Literal["demo"]
    train: Count = 40_000  # scenes
    test: Count = 2_000  # scenes, every second one a combination that training never holds
    prompts: Count = 200  # of the test scenes
    image_size: Count = 32  # pixels
    vocabulary: Count = 512
    processes: Count = 2
    # Of both trainings. auto: bf16, but fp32 on a CPU that only emulates it.
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    seed: int = 0
    tokenizer: str = "demo-tokenizer"
    generator: str = "demo-generator"
    reader: ReaderConfig = ReaderConfig()
    generation: GenerationConfig = GenerationConfig()
    captions: CaptionEvaluation = CaptionEvaluation()  # of the same scenes, where the sequence model writes
    prefix_truth: PrefixTruthConfig = PrefixTruthConfig()  # of the same scenes
