"""Text and ordered latents in one causal sequence model."""

from ar_model.config import GeneratorConfig, GeneratorObjectiveConfig
from ar_model.generator import SeqGenerator
from ar_model.heads.flow import FlowHeadConfig
from ar_model.objective import GeneratorObjective
from ar_model.sampling import SampleConfig

__all__ = [
    "FlowHeadConfig",
    "GeneratorConfig",
    "GeneratorObjective",
    "GeneratorObjectiveConfig",
    "SampleConfig",
    "SeqGenerator",
]
