"""Is all of a folder whole? Every shard is one task, checked to its last byte; faults are collected with their places.

docs/inspect.md says what is found, for data sets of ours, exports and foreign tars.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.executors.progress import OnProgress, ProgressCount, silent
from data_pipelines.executors.run import run_tasks
from data_pipelines.looking.inspect import own_manifest
from data_pipelines.looking.verify_export import check_part, part_jobs
from data_pipelines.looking.verify_made import made_with_loss
from data_pipelines.looking.verify_shard import Checks, Report, VerifyTask, verify_shard
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.shards import manifest as manifests
from data_pipelines.shards.codes import CodeLayout
from data_pipelines.shards.latent_check import LIMIT, Statistics
from data_pipelines.shards.manifest import Manifest
from data_pipelines.shards.parts import ExportManifest, is_export, read_export
from data_pipelines.sources.records import Fields
from data_pipelines.tars.digests import Digests, Place
from data_pipelines.tars.names import find_tars, packed_tars
from data_pipelines.tars.walk import walk_tar
from seqtok_core.foundation.errors import DataError

_PROBLEMS = 1000  # that are named; all are counted
_GROUPS = 20  # of duplicates that are named


@dataclass
class Verdict:
    """What `verify_folder` found. Problems name each fault with its place; `more` counts those that are not named.

    Notes are facts that are no faults: equal pictures, keys that two splits share, members that nothing reads.
    """

    shards: int = 0
    samples: int = 0
    problems: list[str] = field(default_factory=list)
    more: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return len(self.problems) + self.more

    def add(self, problem: str) -> None:
        if len(self.problems) < _PROBLEMS:
            self.problems.append(problem)
        else:
            self.more += 1


def verify_folder(
    folder: Path,
    *,
    decode: bool = True,
    fields: Fields | None = None,
    processes: int = 1,
    on_progress: OnProgress = silent,
) -> Verdict:
    """Check every shard: size, hash, offsets, keys, records and (with `decode`) pictures; latents always.

    Faults are collected, not raised; a DataError means that there is nothing to verify.
    """
    folder = Path(folder)
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    if is_export(folder):
        return _verify_export(folder, read_export(folder), processes, on_progress)
    own = own_manifest(folder)
    checks = _checks(folder, own, fields or Fields(), decode)
    jobs = _jobs(folder, own)
    verdict, keys, pictures = Verdict(), {job.split: Digests() for job in jobs}, Digests()
    reports: dict[int, Report] = {}
    count = ProgressCount(on_progress, len(jobs), sum(info.samples for info in checks.infos.values()))
    for report in run_tasks(verify_shard, checks, jobs, processes, on_start=count.begin, on_lost=count.lose):
        keys[report.job.split].add(report.job.number, report.keys)
        pictures.add(report.job.number, report.pictures)
        report.keys = report.pictures = report.keys[:0]  # kept once
        reports[report.job.number] = report
        count.add(report.samples, report.samples)
    for number in sorted(reports):
        _add(verdict, reports[number])
    _duplicates(folder, jobs, keys, pictures, checks.kind, verdict)
    _beside(folder, own, jobs, list(reports.values()), verdict)
    return verdict


def _jobs(folder: Path, own: Manifest | None) -> list[VerifyTask]:
    if own:
        names = {split: [info.file for info in part.shards] for split, part in own.splits.items()}
    else:
        if (folder / "prepare.json").is_file():
            raise DataError(f"{folder}: the data set is not finished; run the command that makes it again")
        root = _root(folder)
        found = find_tars(folder, without_packed=True)
        names = {split: [path.relative_to(root).as_posix() for path in paths] for split, paths in found.items()}
    pairs = [(split, file) for split in sorted(names) for file in names[split]]
    return [VerifyTask(number, split, file) for number, (split, file) in enumerate(pairs)]


def _checks(folder: Path, own: Manifest | None, fields: Fields, decode: bool) -> Checks:
    if own is None:
        return Checks(_root(folder), fields, decode, {})
    infos = {info.file: info for part in own.splits.values() for info in part.shards}
    latents = own.kind == "latents"
    return Checks(
        folder,
        Fields(),
        decode,
        infos,
        kind=own.kind,
        image_size=own.image_size,
        classes=own.classes,
        statistics=_statistics(own, folder) if latents else None,
        codes=CodeLayout.from_spec(own.latent_spec or {}) if "codes" in own.source else None,
        largest_z=max(LIMIT, own.source.get("check", {}).get("largest_z", 0.0)) * 1.001,
    )


def _root(dataset: Path) -> Path:
    """The folder of the shards; what is verified may be one of them."""
    return dataset if dataset.is_dir() else dataset.parent


def _statistics(own: Manifest, folder: Path) -> Statistics:
    return Statistics.from_spec(own.latent_spec or {}, f"{folder}/{manifests.FILE}")


def _add(verdict: Verdict, report: Report) -> None:
    verdict.shards += 1
    verdict.samples += report.samples
    verdict.more += report.more
    for problem in report.problems:
        verdict.add(problem)


def _duplicates(
    folder: Path, jobs: list[VerifyTask], keys: dict[str, Digests], pictures: Digests, kind: str, verdict: Verdict
) -> None:
    for digests in keys.values():
        extra, groups = digests.equal(_GROUPS)
        for first, *others in groups:
            for other in others:
                place = _root(folder) / jobs[other[0]].file
                verdict.add(f"{place}: key {_key(folder, jobs, first)} is also in {jobs[first[0]].file}")
        verdict.more += extra - sum(len(group) - 1 for group in groups)
    both = Digests()
    for digests in keys.values():
        both.join(digests)
    extra = both.equal(0)[0] - sum(digests.equal(0)[0] for digests in keys.values())
    if extra:
        verdict.notes.append(f"{extra} keys stand in more than one split")
    extra, groups = pictures.equal(_GROUPS)
    if extra:
        what = "latents" if kind == "latents" else "pictures"
        verdict.notes.append(f"{extra} {what} are equal to an earlier one, byte for byte")
        verdict.notes += [f"equal {what}: {', '.join(_place(jobs, p, folder) for p in group[:4])}" for group in groups]


def _key(folder: Path, jobs: list[VerifyTask], place: Place) -> str:
    return walk_tar(_root(folder) / jobs[place[0]].file).samples[place[1]].key


def _place(jobs: list[VerifyTask], place: Place, folder: Path) -> str:
    return f"{jobs[place[0]].file}:{_key(folder, jobs, place)}"


def _beside(
    folder: Path, own: Manifest | None, jobs: list[VerifyTask], reports: list[Report], verdict: Verdict
) -> None:
    """What is not in a shard: the captions model, files that belong to nothing, counts of small things."""
    counted = {
        "members are links, devices or have no ending: nothing reads them": sum(r.ignored for r in reports),
        "keys are no safe file names; preparing the data set again gives safe ones": sum(r.unsafe for r in reports),
        "samples have no caption": sum(r.without_caption for r in reports),
    }
    verdict.notes += [f"{count} {what}" for what, count in counted.items() if count]
    verdict.notes += [
        f"{_root(folder) / report.job.file}: {len(report.archives)} tars joined to one; who stops at the end of the "
        "first, as webdataset and earlier versions of seqtok, reads "
        f"{report.archives[0]} of {report.archives[-1]} samples"
        for report in reports
        if len(report.archives) > 1
    ]
    if own is None and (packed := packed_tars(folder)):
        verdict.add(packed)
    if own is None or not folder.is_dir():
        return
    problems, notes = made_with_loss(own)
    for problem in problems:
        verdict.add(f"{folder / manifests.FILE}: {problem}")
    verdict.notes += notes
    for path in sorted({p.name for p in folder.glob("*.tar")} - {job.file for job in jobs}):
        verdict.notes.append(f"{folder / path} is no part of the data set")
    recorded = own.source.get("latents", {}).get("captions_sha256") if own.kind == "latents" else None
    _check_captions(folder / CAPTIONS_FILE, recorded, verdict)


def _check_captions(path: Path, recorded: str | None, verdict: Verdict) -> None:
    if not path.is_file():
        if recorded is not None:
            verdict.add(f"{path}: the captions model of this export is missing")
        return
    try:
        found = CaptionTokenizer.load(path).sha256
    except DataError as error:
        verdict.add(str(error))
        return
    if recorded is not None and found != recorded:
        verdict.add(f"{path}: has sha256 {found}, dataset.json says {recorded}")


def _verify_export(folder: Path, manifest: ExportManifest, processes: int, on_progress: OnProgress) -> Verdict:
    verdict, jobs = Verdict(), part_jobs(manifest)
    found: list[str] = []
    count = ProgressCount(on_progress, len(jobs), sum(job.part.rows for job in jobs))
    running = run_tasks(check_part, (folder, manifest), jobs, processes, on_start=count.begin, on_lost=count.lose)
    for rows, problems in running:
        found += problems
        verdict.shards, verdict.samples = verdict.shards + 1, verdict.samples + rows
        count.add(rows, rows)
    for problem in sorted(found):
        verdict.add(problem)
    _check_captions(folder / CAPTIONS_FILE, manifest.fingerprints.get("captions_sha256"), verdict)
    return verdict
