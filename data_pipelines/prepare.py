"""Sources -> shards with a manifest. One shard is one task, a pure function of (source, settings, number).

Killed at any moment, the same command continues: committed shards are kept, and the final bytes are the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from data_pipelines import manifest as manifests
from data_pipelines.decode import MAX_PIXELS
from data_pipelines.executors import run_tasks
from data_pipelines.jpeg import Subsampling
from data_pipelines.keys import assign_keys
from data_pipelines.manifest import Manifest, SplitInfo
from data_pipelines.output import Resume, output_folder
from data_pipelines.resize import Resize
from data_pipelines.shard_build import build_samples
from data_pipelines.shard_files import commit_shard, is_committed, read_index, shard_info, shard_name
from data_pipelines.sources import Facts, Source
from seqtok_core.foundation import faults, fingerprint
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import DataError


class PrepareConfig(Config):
    """Settings of a data set; all but `processes` decide its bytes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")] = "data"
    size: Annotated[int, Field(ge=1, le=8192)] = 64  # pixels, square
    form: Literal["png", "jpg"] = "png"  # of pictures that must be encoded again
    quality: Annotated[int, Field(ge=1, le=100)] = 95  # of jpg
    subsampling: Subsampling = "444"  # colour of jpg; "420" is a sixth smaller, with a quarter of the colours
    resize: Resize = "fast"  # "exact": large JPEG is decoded in full and filtered; docs/images.md has the difference
    samples_per_shard: Annotated[int, Field(ge=1)] = 1000
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.02  # more bad samples than this are an error
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    no_caption: Literal["drop", "keep"] = "drop"
    processes: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class Task:
    """Samples [start, start + len(keys)) of a split, as shard `number`. A key of None is a duplicate."""

    split: str
    number: int
    start: int
    keys: tuple[str | None, ...]


@dataclass(frozen=True)
class Progress:
    shards_done: int
    shards: int
    samples_done: int
    samples: int
    bad: int


@dataclass(frozen=True)
class _Work:
    """What all tasks share."""

    sources: Mapping[str, Source]
    config: PrepareConfig
    out: Path
    plan: str  # fingerprint


def prepare(
    sources: Mapping[str, Source],
    out: Path,
    config: PrepareConfig,
    *,
    overwrite: bool = False,
    resume: Resume = "auto",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Write one data set of one or more splits into the folder `out` and return its manifest.

    Raises DataError when too many samples are bad or the folder holds something else, StorageError when the
    disk is full. Whatever was committed before an error stays and is used by the next call.
    """
    out = Path(out)
    plan = plan_of(sources, config)
    with output_folder(out, plan, overwrite=overwrite, resume=resume):
        work = _Work(sources, config, out, fingerprint.of_value(plan))
        tasks = make_tasks(sources, config)
        _run(work, tasks, on_progress)
        faults.hit("prepare.before_manifest")
        result = _summary(work, tasks, plan)
        manifests.write_manifest(out, result)
        faults.hit("prepare.after_manifest")
    return result


def make_tasks(sources: Mapping[str, Source], config: PrepareConfig) -> list[Task]:
    """The same for every number of processes."""
    tasks = []
    for split, source in sorted(sources.items()):
        if not len(source):
            raise DataError(f"split {split}: the source holds no samples")
        keys = assign_keys(list(source.names(0, len(source))))
        for number, start in enumerate(range(0, len(keys), config.samples_per_shard)):
            tasks.append(Task(split, number, start, tuple(keys[start : start + config.samples_per_shard])))
    return tasks


def _run(work: _Work, tasks: list[Task], on_progress: Callable[[Progress], None]) -> None:
    total = sum(len(task.keys) for task in tasks)
    reasons: Counter[str] = Counter()
    done = samples = 0
    on_progress(Progress(0, len(tasks), 0, total, 0))
    for count, dropped in run_tasks(_do, work, tasks, work.config.processes):
        done, samples = done + 1, samples + count
        reasons.update(dropped)
        on_progress(Progress(done, len(tasks), samples, total, reasons.total()))
        if reasons.total() > work.config.max_bad_share * total:
            raise DataError(_too_many(work, tasks, reasons, total))
    if reasons.total() == total:
        raise DataError(_too_many(work, tasks, reasons, total))


def _do(work: _Work, task: Task) -> tuple[int, Counter[str]]:
    """Returns (samples looked at, bad ones by reason)."""
    config, file = work.config, shard_name(work.config.name, task.split, task.number)
    identity = fingerprint.of_value([work.plan, task.split, task.number])
    if not is_committed(work.out, file, identity):
        pairs = work.sources[task.split].pairs(task.start, task.start + len(task.keys))
        samples, facts = build_samples(pairs, task.keys, config)
        commit_shard(work.out, file, samples, task=identity, facts=facts)
    facts = read_index(work.out, file)["facts"]
    return len(task.keys), Counter(item["reason"] for item in facts["dropped"])


def _too_many(work: _Work, tasks: list[Task], reasons: Counter[str], total: int) -> str:
    listed = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
    first = next(iter(_dropped(work, tasks)), None)
    example = f"; first: {first['source']} ({first['reason']} {first['detail']})" if first else ""
    return (
        f"{work.out}: {reasons.total()} of {total} samples are bad ({listed}){example}; allowed share: "
        f"{work.config.max_bad_share:g}; mend them, or allow a larger share (max_bad_share)"
    )


def _dropped(work: _Work, tasks: list[Task]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for task in tasks:
        try:
            index = read_index(work.out, shard_name(work.config.name, task.split, task.number))
        except DataError:
            continue  # not built yet
        found += index["facts"]["dropped"]
    return found


def _summary(work: _Work, tasks: list[Task], plan: dict[str, Any]) -> Manifest:
    facts = next(iter(work.sources.values())).facts()
    splits = {split: _split(work, [t for t in tasks if t.split == split]) for split in sorted(work.sources)}
    levels = 0
    seen: dict[str, set[str]] = {}
    for task in tasks:
        found = read_index(work.out, shard_name(work.config.name, task.split, task.number))["facts"]
        levels = max(levels, found["levels"])
        for label, words in found["labels"].items():
            seen.setdefault(label, set()).update(words)
    return Manifest(
        kind="images",
        name=work.config.name,
        image_size=work.config.size,
        levels=levels,
        level_names=facts.level_names,
        level_labels=facts.level_labels,
        labels=tuple(sorted(seen)),
        classes=_classes(seen, facts),
        splits=splits,
        source=plan,
    )


def _split(work: _Work, tasks: list[Task]) -> SplitInfo:
    files = [shard_name(work.config.name, task.split, task.number) for task in tasks]
    shards = tuple(shard_info(work.out, file) for file in files)
    dropped = _dropped(work, tasks)
    notes: Counter[str] = Counter()
    for file in files:
        notes.update(read_index(work.out, file)["facts"]["notes"])
    return SplitInfo(
        samples=sum(shard.samples for shard in shards),
        shards=shards,
        dropped=dict(Counter(item["reason"] for item in dropped)),
        dropped_samples=tuple(manifests.Dropped(**item) for item in dropped[: manifests.NAMED_DROPS]),
        notes=dict(notes),
    )


def _classes(seen: Mapping[str, set[str]], facts: Facts) -> dict[str, tuple[str, ...]]:
    """Words in the source's own order where it has one, else sorted; labels that are numbers have none."""
    found = {label: tuple(sorted(words)) for label, words in seen.items() if words}
    return {**found, **{label: words for label, words in facts.classes.items() if label in seen}}


def plan_of(sources: Mapping[str, Source], config: PrepareConfig) -> dict[str, Any]:
    """What decides every byte of the data set, as JSON; kept in its folder."""
    bad = [split for split in sources if not re.fullmatch(r"[a-z]{1,32}", split)]
    if not sources or bad:
        raise DataError(f"splits must be named in small letters, not {bad}" if bad else "there is no source")
    settings = config.model_dump(mode="json", exclude={"processes"})
    return {"config": settings, "splits": {split: source.identity() for split, source in sources.items()}}
