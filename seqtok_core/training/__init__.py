"""The DeepSpeed service: it knows `objective(batch) -> {"loss": …, named scalars}`, a loader and a folder.

loop.py has the way of a run and of one step. engine/ is DeepSpeed, optimizer/ what updates weights, checkpoints/ and
run_folder.py what lies on disk, journal/ what a run says of itself, processes/ ranks and signals, costs/ arithmetic.
"""

from seqtok_core.training.config import TrainConfig
from seqtok_core.training.journal.metrics import Shown
from seqtok_core.training.journal.summary import TrainResult, summarise
from seqtok_core.training.loop import train
from seqtok_core.training.processes.distributed import World
from seqtok_core.training.run import Validation

__all__ = ["Shown", "TrainConfig", "TrainResult", "Validation", "World", "summarise", "train"]
