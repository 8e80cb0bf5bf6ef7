"""How a run ended, and the screen that says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BEST = "best"  # in the run's folder: the model folder of the least held-out loss


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `seconds` counts all parts of a run that was continued, `images_per_s` and `mfu` the last."""

    folder: Path
    steps: int
    images: int
    seconds: float
    images_per_s: float
    skipped: int
    resumed_from: str | None
    last: dict[str, float]
    processes: int = 1
    starts: int = 1  # 1 + how often it was continued
    mfu: float | None = None  # of the peak that `peak_source` names
    peak_source: str | None = None
    peak_memory: int = 0  # bytes, of the process that held most
    memory_of: str = "main memory"
    model: Path | None = None
    best: dict[str, float] | None = None  # what held-out data said at the least loss, on rank 0


def summarise(result: TrainResult) -> str:
    """One screen: a line per fact, the values of the last line of metrics.jsonl, and where the model is."""
    hours, rest = divmod(int(result.seconds), 3600)
    per_process = " per process" if result.processes > 1 else ""
    facts = [
        ("images", f"{result.images:,} in {result.steps:,} steps, on {_count(result.processes, 'process')}"),
        ("time", f"{hours}:{rest // 60:02d}:{rest % 60:02d}, {result.images_per_s:,.1f} images/s"),
        ("memory", f"{result.peak_memory / 1e9:.2f} GB of {result.memory_of} at most{per_process}"),
        ("skipped", _count(result.skipped, "step") if result.skipped else "no step"),
        ("continued", f"{_count(result.starts - 1, 'time')}, last from {result.resumed_from or 'the beginning'}"),
    ]
    if result.starts == 1:
        facts.pop()
    if result.mfu is not None:
        facts.insert(2, ("MFU", f"{result.mfu:.1%} of the peak ({result.peak_source})"))
    if result.last:
        facts.append(("last", ", ".join(f"{name} {value:.4g}" for name, value in result.last.items())))
    if result.best:
        told = f"loss {result.best['loss']:.4g} of held-out data after {result.best['images']:,} images"
        facts.append(("best", f"{told}: {result.folder / BEST}"))
    facts.append(("model", str(result.model or result.folder)))
    return "\n".join([f"{result.folder}: done", *(f"  {name:9}  {value}" for name, value in facts)])


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"
