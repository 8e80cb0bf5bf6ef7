"""The DeepSpeed service: it knows `objective(batch) -> {"loss": …, named scalars}`, a loader and a folder."""

from seqtok_core.training.config import TrainConfig
from seqtok_core.training.journal.summary import TrainResult, summarise
from seqtok_core.training.loop import train
from seqtok_core.training.processes.distributed import World

__all__ = ["TrainConfig", "TrainResult", "World", "summarise", "train"]
