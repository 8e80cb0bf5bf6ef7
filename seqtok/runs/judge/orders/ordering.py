"""seqtok evaluate ordering: the contestants of a suite trained and judged, each in a process of its own, so many side
by side; then one table and one page of all of them. Killed, it continues where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import typer

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.image_text import read_split, sample_split
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.shards.manifest import read_manifest
from seqtok.evaluation.ordering.page import write_page
from seqtok.evaluation.ordering.table import Row, summarise_suite
from seqtok.evaluation.report.report import RESULTS, read_results
from seqtok.runs.judge.orders.by_eye import open_eye
from seqtok.runs.judge.orders.contest import require_apart
from seqtok.runs.judge.orders.suite import SuiteConfig
from seqtok.runs.settings import read_values
from seqtok_core.foundation.errors import SeqtokError
from seqtok_core.foundation.files import folder_lock, write_json

_RESOLVED, _LOG = "suite.json", "contest.log"
_AGAIN = 75  # EX_TEMPFAIL: stopped by a signal, to be continued
_LOOK = 0.5  # seconds


@dataclass(frozen=True)
class Contest:
    """A contestant with one seed."""

    name: str
    seed: int


def open_suite(config: str, overrides: Sequence[str]) -> SuiteConfig:
    """Its settings, and those of every contestant read once before the first is trained. Raises ConfigError."""
    suite = SuiteConfig.parse(read_values(config, overrides), config)
    for name in suite.contestants:
        suite.runs(name, suite.seeds[0])
    return suite


def run_suite(suite: SuiteConfig) -> Path:
    """-> the page. Raises DataError; SeqtokError naming the contestants that failed, after all others are done."""
    contests = [Contest(name, seed) for seed in suite.seeds for name in suite.contestants]
    with folder_lock(suite.out):
        write_json(suite.out / _RESOLVED, suite.model_dump(mode="json"))
        _require_apart(suite)
        levels, _ = suite.levels()
        open_eye(suite, levels or {}, suite.tokenizer_run(suite.contestants[0], suite.seeds[0]).model.image_size)
        failed = _Conductor(suite).conduct([each for each in contests if not is_judged(suite, each)])
        page = write_suite(suite)
    if failed:
        named = "; ".join(f"{each.name}, seed {each.seed}: {_last_words(suite, each)}" for each in failed)
        raise SeqtokError(f"{len(failed)} of {len(contests)} contests failed ({named}); the others are in {page}")
    return page


def write_suite(suite: SuiteConfig) -> Path:
    """The table and the page of whatever is judged so far."""
    rows = []
    for name in suite.contestants:
        done = [seed for seed in suite.seeds if is_judged(suite, Contest(name, seed))]
        own, runs = suite.contestant(name), [read_results(suite.folder(name, seed)) for seed in done]
        if runs:
            rows.append(Row(name, own.says, own.taught, runs))
    return write_page(suite.out, summarise_suite(rows, suite.judge.model_dump(mode="json")), rows)


def is_judged(suite: SuiteConfig, contest: Contest) -> bool:
    return (suite.folder(contest.name, contest.seed) / RESULTS).is_file()


def _require_apart(suite: SuiteConfig) -> None:
    captions = CaptionTokenizer.load(suite.data / CAPTIONS_FILE)
    train, judge = read_manifest(suite.data).splits["train"], suite.judge
    for split, count in {"test": judge.test, judge.pictures_split: max(judge.pictures, judge.test)}.items():
        held_out = read_split(suite.data, split, captions, count)
        require_apart(sample_split(suite.data, "train", captions, train.samples), held_out)


class _Conductor:
    """Processes of contests. A signal to stop is handed on to them, and the next call continues what they saved."""

    def __init__(self, suite: SuiteConfig) -> None:
        self._suite = suite
        self._running: dict[Contest, subprocess.Popen[bytes]] = {}
        self._stopped = False

    def conduct(self, contests: Sequence[Contest]) -> list[Contest]:
        """-> those that failed."""
        waiting, failed = list(contests), []
        before = {which: signal.signal(which, self._stop) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            while (waiting and not self._stopped) or self._running:
                while waiting and len(self._running) < self._suite.jobs and not self._stopped:
                    self._start(waiting.pop(0))
                time.sleep(_LOOK)
                failed += self._ended()
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)
        if self._stopped:
            typer.echo("stopped; the same command continues", err=True)
            raise typer.Exit(_AGAIN)
        return failed

    def _start(self, contest: Contest) -> None:
        folder = self._suite.folder(contest.name, contest.seed)
        folder.mkdir(parents=True, exist_ok=True)
        threads = max(1, (os.cpu_count() or 1) // self._suite.jobs)
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        module = "seqtok.runs.judge.orders.contest"
        command = [sys.executable, "-m", module, str(self._suite.out / _RESOLVED), contest.name, str(contest.seed)]
        with (folder / _LOG).open("ab") as log:
            self._running[contest] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        typer.echo(f"{contest.name}, seed {contest.seed}: begun, see {folder / _LOG}")

    def _ended(self) -> list[Contest]:
        failed = []
        for contest, process in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[contest]
            if process.returncode and not self._stopped:
                failed.append(contest)
                typer.echo(f"{contest.name}, seed {contest.seed}: {_last_words(self._suite, contest)}", err=True)
            elif not process.returncode:
                typer.echo(f"{contest.name}, seed {contest.seed}: judged")
                write_suite(self._suite)
        return failed

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)


def _last_words(suite: SuiteConfig, contest: Contest) -> str:
    lines = (suite.folder(contest.name, contest.seed) / _LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no word")
