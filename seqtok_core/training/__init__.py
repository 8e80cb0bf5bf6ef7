"""The DeepSpeed service: it knows `objective(batch) -> {"loss": …, named scalars}`, a loader and a folder."""

from seqtok_core.training.config import TrainConfig
from seqtok_core.training.distributed import World
from seqtok_core.training.loop import train
from seqtok_core.training.summary import TrainResult, summarise

__all__ = ["TrainConfig", "TrainResult", "World", "summarise", "train"]
