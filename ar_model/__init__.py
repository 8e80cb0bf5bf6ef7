"""Text and ordered latents in one causal sequence model."""

from ar_model.config import FlowHeadConfig, GeneratorConfig, GeneratorObjectiveConfig, SampleConfig
from ar_model.generator import SeqGenerator
from ar_model.objective import GeneratorObjective

__all__ = [
    "FlowHeadConfig",
    "GeneratorConfig",
    "GeneratorObjective",
    "GeneratorObjectiveConfig",
    "SampleConfig",
    "SeqGenerator",
]
