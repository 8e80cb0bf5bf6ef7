"""What documents teach a sequence model: a picture is changed by words, and stays as it was where they say nothing.

    python -m benchmarks.sequences.documents TOKENIZER READER OUT [SETTING ...] [--stories 20000] [--asked 1000]
        [--begin GENERATOR] [--results FILE]

The stories of stories.py, in latents of TOKENIZER (a run or model folder); the model is the shipped `demo-documents`
with SETTINGs, and begins with the weights of GENERATOR, which knows pairs. Judged on held-out stories:
- the picture after one change, drawn from the first scene and the words; after two, from the pictures that were drawn
  before, and from the true ones; the controls, the words alone, and the words behind the first scene of another story;
- how far its shapes stand from where they were, beside the tokenizer alone and a scene of the same caption;
- the caption that is written behind the last picture, and behind those of another story.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from torch import Tensor

from ar_model import SampleConfig, SeqGenerator
from ar_model.documents.continuing import Document, draw_next, write_next
from benchmarks.machine import describe_machine
from benchmarks.sequences.stories import CHANGES, Story, make_story, write_stories
from data_pipelines.scenes import Scene, moved
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.evaluation.scenes import generation
from seqtok.evaluation.scenes.captions import caption_verdicts
from seqtok.evaluation.scenes.reader import Reading, SceneReader
from seqtok.evaluation.scenes.reader_folder import load_or_train_reader
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.export.run import export_latents
from seqtok.grids import grid
from seqtok.pictures.sample import load_pair
from seqtok.runs.generators.documents import DocumentsRun
from seqtok.runs.kinds import load_kind
from seqtok.runs.train import train_run

SAMPLES = {"guided": SampleConfig(guidance=2.0, temperature=0.6), "unguided": SampleConfig(guidance=1.0)}
_SHOWN = 6  # stories in the picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("reader", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--stories", type=int, default=20_000)
    parser.add_argument("--asked", type=int, default=1000)
    parser.add_argument("--begin", help="model folder that knows pairs")
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    seconds = trained(args.tokenizer, args.out, args.stories, args.begin, args.settings)
    generator, tokenizer = load_pair(args.out / "run" / "model", args.tokenizer)
    reader = load_or_train_reader(args.reader, ReaderConfig())
    found = judged(generator, tokenizer, reader, args.asked, args.out / "stories.png")
    print(json.dumps(found, indent=1))
    about = {"machine": describe_machine(), "settings": args.settings, "stories": args.stories, "asked": args.asked}
    about |= {"begins_with": bool(args.begin), "training_seconds": seconds}
    if args.results:
        args.results.write_text(json.dumps({**about, **found}, indent=1, sort_keys=True) + "\n")


def trained(tokenizer: Path, out: Path, stories: int, begin: str | None, settings: Sequence[str]) -> float | None:
    """Seconds of training; what is there is not made again."""
    size = SeqTokenizer.from_pretrained(tokenizer).config.image_size
    data, latents = out / "data", out / "latents"
    if not (latents / "dataset.json").is_file():
        write_stories(data, {"train": stories, "val": 256}, size)
        shutil.copy(tokenizer / "captions.model", data / "captions.model")
        export_latents(tokenizer, data, latents)
    own = [f"data.folder={latents}", f"data.documents={data / 'documents-train.jsonl'}", f"out={out / 'run'}"]
    own += [f"tokenizer={tokenizer}", f"validation.documents={data / 'documents-val.jsonl'}"]
    own += ["validation.every=4000", "validation.samples=256"]
    begins = [] if begin is None else [f"init_from={begin}"]
    result = train_run(load_kind(DocumentsRun, "demo-documents", [*own, *begins, *settings]))
    return None if result is None else round(result.seconds, 1)


def judged(
    generator: SeqGenerator, tokenizer: SeqTokenizer, reader: SceneReader, asked: int, sheet: Path
) -> dict[str, Any]:
    """Every figure, and a sheet of the first stories: the true scenes, below them what was drawn after the first."""
    stories = [make_story(number, "test") for number in range(asked)]
    size = tokenizer.config.image_size
    real = [generation.real_pictures([story.scenes[step] for story in stories], size) for step in range(CHANGES + 1)]
    known = [encode_all(tokenizer, pictures) for pictures in real]
    found: dict[str, Any] = {}
    for step in range(1, CHANGES + 1):
        rebuilt = decode_all(tokenizer, known[step], known[step].shape[1])
        found[f"change_{step}"] = {"tokenizer alone": _scores(reader, rebuilt, stories, step)}
    same = generation.real_pictures([moved(story.scenes[1], number) for number, story in enumerate(stories)], size)
    found["change_1"]["another scene of the same caption"] = _scores(reader, same, stories, 1)
    for how, config in SAMPLES.items():
        drawn: list[Tensor] = []
        for step in range(1, CHANGES + 1):
            ways = {"": [_document(known[0], drawn, stories, row, step) for row in range(asked)]}
            if step == 1:
                ways[", words alone"] = [[story.changes[0]] for story in stories]
                ways[", another first scene"] = [
                    _document(known[0].roll(1, 0), [], stories, row, step) for row in range(asked)
                ]
            else:
                ways[", true pictures before"] = [
                    _document(known[0], known[1:], stories, row, step) for row in range(asked)
                ]
            for name, documents in ways.items():
                latents = draw_next(generator, documents, config)
                pictures = decode_all(tokenizer, latents, latents.shape[1])
                found[f"change_{step}"][how + name] = _scores(reader, pictures, stories, step)
                if not name:
                    drawn.append(latents)
        if how == "unguided":
            _draw(tokenizer, real, drawn, sheet)
    found["caption"] = _captions(generator, known, stories)
    return found


def _document(first: Tensor, later: Sequence[Tensor], stories: Sequence[Story], row: int, step: int) -> Document:
    """Up to the change that leads to scene `step`, the first scene's caption left out."""
    parts: list[str | Tensor] = [first[row]]
    for number in range(1, step):
        parts += [stories[row].changes[number - 1], later[number - 1][row]]
    return [*parts, stories[row].changes[step - 1]]


def _scores(reader: SceneReader, pictures: Tensor, stories: Sequence[Story], step: int) -> dict[str, Any]:
    scenes = [story.scenes[step] for story in stories]
    readings = generation.read_pictures(reader, pictures)
    verdicts = generation.judge(readings, scenes, 3)
    shown = {name: generation.share(verdicts, name) for name in ("everything", "binding", "background")}
    apart = [_distance(reading, scene) for reading, scene in zip(readings, scenes, strict=True)]
    near = [value for value in apart if value is not None]
    return {
        **{name: round(value, 4) for name, value in shown.items() if value is not None},
        "interval": [round(bound, 4) for bound in generation.wilson(shown["everything"] or 0.0, len(scenes))],
        "displaced": round(sum(near) / len(near), 4) if near else None,
    }


def _distance(reading: Reading, scene: Scene) -> float | None:
    """Mean distance, in sides of the picture, of the shapes from their true places in the best pairing of equal kinds;
    None where other kinds are seen."""
    seen, asked = reading.objects, scene.shapes
    if sorted(each.kind for each in seen) != sorted(each.kind for each in asked):
        return None
    ways = (way for way in permutations(seen) if all(a.kind == b.kind for a, b in zip(way, asked, strict=True)))
    return min(
        sum(((a.x - b.x) ** 2 + (a.y - b.y) ** 2) ** 0.5 for a, b in zip(way, asked, strict=True)) / len(asked)
        for way in ways
    )


def _captions(generator: SeqGenerator, known: Sequence[Tensor], stories: Sequence[Story]) -> dict[str, float]:
    """Of the last picture: right in everything, behind the true pictures, and where the last one is another story's."""
    scenes, found = [story.scenes[-1] for story in stories], {}
    other = known[-1].roll(1, 0)
    for name, last in (("its pictures", known[-1]), ("the last of another story", other)):
        documents = [[*_document(known[0], known[1:], stories, row, CHANGES), last[row]] for row in range(len(stories))]
        verdicts = caption_verdicts(write_next(generator, documents), scenes)
        found[name] = round(generation.share(verdicts, "everything") or 0.0, 4)
    return found


def _draw(tokenizer: SeqTokenizer, real: Sequence[Tensor], drawn: Sequence[Tensor], sheet: Path) -> None:
    made = [decode_all(tokenizer, latents[:_SHOWN], latents.shape[1]) for latents in drawn]
    rows = []
    for row in range(_SHOWN):
        rows.append([pictures[row] for pictures in real])
        rows.append([real[0][row], *(pictures[row] for pictures in made)])
    grid(rows, ["first", *(f"change {n}" for n in range(1, CHANGES + 1))]).save(sheet)


if __name__ == "__main__":
    main()
