"""Sources -> shards with a manifest, by processes of this machine or by a Ray cluster.

Killed at any moment, the same command continues: committed shards are kept, and the final bytes are the same.
Memory does not grow with the number of samples but for 17 bytes each: names are read as a stream (keys.py), tasks are
made when they are handed out, and what a finished shard leaves behind is its line of the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from data_pipelines import manifest as manifests
from data_pipelines.caption_text import CaptionRules
from data_pipelines.decode import MAX_PIXELS
from data_pipelines.executors import run_tasks
from data_pipelines.jpeg import Subsampling
from data_pipelines.manifest import Manifest
from data_pipelines.output import LOCK, Resume, output_folder
from data_pipelines.resize import Resize
from data_pipelines.shard_tasks import Done, Work, do_task, make_tasks
from data_pipelines.sources import Source
from data_pipelines.tally import Tally
from seqtok_core.foundation import faults, fingerprint
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import DataError

_ONLY_HOW = {"processes", "engine", "ray_address", "max_bad_share", "max_bad_run"}


class PrepareConfig(Config):
    """Settings of a data set. The last five say how it is made and what is refused, the others decide its bytes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")] = "data"
    size: Annotated[int, Field(ge=1, le=8192)] = 64  # pixels, square
    form: Literal["png", "jpg"] = "png"  # of pictures that must be encoded again
    quality: Annotated[int, Field(ge=1, le=100)] = 95  # of jpg
    subsampling: Subsampling = "444"  # colour of jpg; "420" is a sixth smaller and loses 4.5 dB
    resize: Resize = "fast"  # "exact": large JPEG is decoded in full and filtered; docs/images.md has the difference
    samples_per_shard: Annotated[int, Field(ge=1)] = 1000
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    captions: CaptionRules = CaptionRules()
    no_caption: Literal["drop", "keep"] = "drop"
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.02  # more bad samples than this are an error
    max_bad_run: Annotated[int, Field(ge=0)] = 100  # so many bad ones in a row of a shard are an error; 0: no limit
    processes: Annotated[int, Field(ge=1)] = 1
    engine: Literal["processes", "ray"] = "processes"
    ray_address: Annotated[str, Field(min_length=1)] = "auto"  # or local, HOST:PORT, ray://HOST:PORT


@dataclass(frozen=True)
class Progress:
    """Where a preparation stands. Samples count when their shard is finished."""

    stage: Literal["names", "shards"]
    shards_done: int = 0
    shards: int = 0
    samples_done: int = 0  # in stage "names": names read
    samples: int = 0
    samples_built: int = 0  # of samples_done: in this run; the others were found finished
    shards_begun: int = 0  # handed out in this run
    workers_lost: int = 0
    bad: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)  # by reason; with the filtered ones


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
        owner = (out / LOCK).read_text(encoding="utf-8")
        work = Work(sources, config, out.absolute(), fingerprint.of_value(plan), owner)
        tally = _run(work, on_progress)
        faults.hit("prepare.before_manifest")
        result = tally.manifest(config, next(iter(sources.values())).facts(), plan)
        manifests.write_manifest(out, result)
        faults.hit("prepare.after_manifest")
    return result


def plan_of(sources: Mapping[str, Source], config: PrepareConfig) -> dict[str, Any]:
    """What decides every byte of the data set, as JSON; kept in its folder."""
    bad = [split for split in sources if not re.fullmatch(r"[a-z]{1,32}", split)]
    if not sources or bad:
        raise DataError(f"splits must be named in small letters, not {bad}" if bad else "there is no source")
    settings = config.model_dump(mode="json", exclude=_ONLY_HOW)
    return {"config": settings, "splits": {split: source.identity() for split, source in sources.items()}}


def _run(work: Work, on_progress: Callable[[Progress], None]) -> Tally:
    config = work.config
    names = sum(len(source) for source in work.sources.values())
    tasks = make_tasks(
        work.sources,
        config,
        lambda read: on_progress(Progress("names", samples_done=read, samples=names)),
    )
    tally = Tally(tasks)
    begun, lost = [0], [0]

    def report() -> None:
        on_progress(_progress(tally, begun[0], lost[0]))

    def count(counter: list[int]) -> Callable[[Any], None]:
        def on_event(task: Any) -> None:
            counter[0] += 1
            report()

        return on_event

    report()
    address = config.ray_address if config.engine == "ray" else None
    running: Iterable[Done] = run_tasks(
        do_task, work, tasks, config.processes, ray_address=address, on_start=count(begun), on_lost=count(lost)
    )
    with closing(running):  # type: ignore[type-var]
        for done in running:
            tally.add(done)
            report()
            _refuse_bad(work, tally)
    return tally


def _progress(tally: Tally, begun: int, lost: int) -> Progress:
    return Progress(
        "shards",
        shards_done=tally.shards,
        shards=len(tally.tasks),
        samples_done=tally.samples,
        samples=tally.tasks.samples,
        samples_built=tally.built,
        shards_begun=begun,
        workers_lost=lost,
        bad=tally.bad,
        dropped=tally.dropped,
    )


def _refuse_bad(work: Work, tally: Tally) -> None:
    """Raises DataError when more samples are bad than allowed, or none is left in the end."""
    total, allowed = tally.tasks.samples, work.config.max_bad_share
    dropped, bad = tally.dropped, tally.bad
    listed = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())
    if dropped.total() == total and not bad:
        raise DataError(f"{work.out}: all {total} samples are left out ({listed}); change the filter")
    if bad > allowed * total or dropped.total() == total:
        first = tally.first_bad
        example = f"; first: {first.source} ({first.reason} {first.detail})" if first else ""
        raise DataError(
            f"{work.out}: {bad} of {total} samples are bad ({listed}){example}; allowed share: {allowed:g}; "
            "mend them, or allow a larger share (max_bad_share)"
        )
