"""Sources -> shards with a manifest, by processes of this machine or by a Ray cluster.

Killed at any moment, the same command continues: committed shards are kept, and the final bytes are the same.
Memory does not grow with the number of samples but for 17 bytes each: names are read as a stream (keys.py), tasks are
made when they are handed out, and what a finished shard leaves behind is its line of the manifest.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from data_pipelines.executors.progress import OnProgress, Progress, ProgressCount, silent
from data_pipelines.executors.run import run_tasks
from data_pipelines.prepare.settings import OF_SOURCE, ONLY_HOW, PrepareConfig
from data_pipelines.prepare.tally import Tally
from data_pipelines.prepare.tasks import PrepareWork, ShardDone, do_task, make_tasks
from data_pipelines.shards import manifest as manifests
from data_pipelines.shards.manifest import Manifest
from data_pipelines.shards.output import LOCK, PLAN, Resume, output_folder
from data_pipelines.sources.base import Bad, Source
from data_pipelines.sources.derived.shuffled import Shuffled, sorted_label
from seqtok_core.foundation import faults, fingerprint
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import read_json


def prepare(
    sources: Mapping[str, Source],
    out: Path,
    config: PrepareConfig,
    *,
    overwrite: bool = False,
    resume: Resume = "auto",
    on_progress: OnProgress = silent,
) -> Manifest:
    """Write one data set of one or more splits into the folder `out` and return its manifest.

    Raises DataError when too many samples are bad or the folder holds something else, StorageError when the
    disk is full. Whatever was committed before an error stays and is used by the next call.
    """
    out = Path(out)
    sources = arrange_sources(sources, config, None if overwrite else out)
    plan = plan_of(sources, config)
    with output_folder(out, plan, overwrite=overwrite, resume=resume):
        owner = (out / LOCK).read_text(encoding="utf-8")
        work = PrepareWork(sources, config, out.absolute(), fingerprint.of_value(plan), owner)
        tally = _run(work, on_progress)
        faults.hit("prepare.before_manifest")
        result = tally.manifest(config, next(iter(sources.values())).facts(), plan)
        manifests.write_manifest(out, result)
        faults.hit("prepare.after_manifest")
    return result


def arrange_sources(sources: Mapping[str, Source], config: PrepareConfig, begun: Path | None) -> dict[str, Source]:
    """The sources in the order in which they are written: shuffled where the settings say so. What was `begun` in that
    folder from the same sources in their own order goes on in it, and in blocks of another size in these.
    """
    plan = read_json(begun / PLAN) if begun is not None and (begun / PLAN).is_file() else None
    asked = {split for split in sources if config.shuffle == "on"}
    if config.shuffle == "auto":
        asked = {split for split, source in sources.items() if sorted_label(source) is not None}
        if asked and plan is not None and plan == plan_of(sources, config):
            warnings.warn(f"{begun}: begun in the order of its source, which is sorted; goes on in it", stacklevel=3)
            asked = set()
    arranged = dict(sources)
    for split in asked:
        source = sources[split]
        block = _block_begun(plan, split) or source.facts().block
        arranged[split] = source if isinstance(source, Shuffled) else Shuffled(source, block)
    return arranged


def _block_begun(plan: Any, split: str) -> int:
    """Samples that stay together in a split of a plan; 0 where that does not say so."""
    try:
        block = plan["splits"][split]["parts"][-1]["shuffled"]["block"]
    except (LookupError, TypeError):
        return 0
    return block if isinstance(block, int) and block > 0 else 0


def plan_of(sources: Mapping[str, Source], config: PrepareConfig) -> dict[str, Any]:
    """What decides every byte of the data set, as JSON; kept in its folder."""
    bad = [split for split in sources if not re.fullmatch(r"[a-z]{1,32}", split)]
    if not sources or bad:
        raise DataError(f"splits must be named in small letters, not {bad}" if bad else "there is no source")
    settings = config.model_dump(mode="json", exclude=ONLY_HOW | OF_SOURCE)
    return {"config": settings, "splits": {split: source.identity() for split, source in sources.items()}}


def _run(work: PrepareWork, on_progress: OnProgress) -> Tally:
    config = work.config
    names = sum(len(source) for source in work.sources.values())
    tasks = make_tasks(
        work.sources,
        config,
        lambda read: on_progress(Progress("names", samples_done=read, samples=names)),
    )
    tally, count = Tally(tasks), ProgressCount(on_progress, len(tasks), tasks.samples)
    address = config.ray_address if config.engine == "ray" else None
    running: Iterable[ShardDone] = run_tasks(
        do_task, work, tasks, config.processes, ray_address=address, on_start=count.begin, on_lost=count.lose
    )
    with closing(running):  # type: ignore[type-var]
        for done in running:
            tally.add(done)
            samples = done.task.stop - done.task.start
            count.add(samples, samples if done.built else 0, done.dropped, done.bad)
            _refuse_bad(work, tally)
    return tally


def _refuse_bad(work: PrepareWork, tally: Tally) -> None:
    """Raises DataError when more samples are bad than allowed, or none is left in the end."""
    total, allowed = tally.tasks.samples, work.config.max_bad_share
    dropped, bad = tally.dropped, tally.bad
    listed = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())
    if dropped.total() == total and not bad:
        raise DataError(f"{work.out}: all {total} samples are left out ({listed}); change the filter")
    if bad > allowed * total or dropped.total() == total:
        first = tally.first_bad
        example = f"; first: {Bad(first.source, first.reason, first.detail)}" if first else ""
        raise DataError(
            f"{work.out}: {bad} of {total} samples are bad ({listed}){example}; allowed share: {allowed:g}; "
            "mend them, or allow a larger share (`max_bad_share`)"
        )
