"""Heads and sequences beside each other: the same latents, the same number of sequences, one thing changed.

    python -m benchmarks.generators DEMO OUT [SETTING ...] [--only NAME ...] [--sequences 130000] [--results FILE]

The shipped model writes captions, too, and its prompts are taught as guidance of 2 draws, which only the flow head can.
Contestants that only draw, all taught by the data, as in generators.json: `objective.text_to_image=1.0
objective.condition_dropout=0.3 objective.finest_share=0.85 objective.guided_targets=1 model.writer=shared
model.sequence.caption_levels=0 model.sequence.caption_dropout=0` as SETTINGs.

DEMO is what `seqtok demo` leaves (tokenizer, latents, reader). Every contestant is a sequence model of the shipped
`demo-generator` with its own changes, and SETTINGs for all. Judged:
- held-out prompts (test scenes that no setting was chosen on): everything right, with guidance 2 and temperature 0.6,
  and without guidance, seen and unseen combinations apart; with coarser captions; and how far the shapes of two
  drawings of one prompt stand apart, beside real pictures of one caption;
- Frechet distance in the reader's features, without guidance, between pictures of 5,000 prompts of the training's law
  and the real pictures of 5,000 others; beside it that of two sets of real pictures, and of pictures that the
  tokenizer alone rebuilds;
- captions of held-out pictures, where captions were trained; seconds of training and of drawing an image.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ar_model import SampleConfig, SeqGenerator
from benchmarks.machine import describe_machine
from data_pipelines.scenes import make_scene
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.evaluation.metrics.sets.frechet import frechet_distance, frechet_note
from seqtok.evaluation.report.protocol import VARIED
from seqtok.evaluation.runners.captions import CaptionEvaluation, evaluate_captions
from seqtok.evaluation.runners.generation import measure_variety
from seqtok.evaluation.scenes import generation
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.reader_folder import load_or_train_reader
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.evaluation.scenes.scoring import FINEST, LEVELS
from seqtok.pictures.sample import load_pair
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.kinds import load_kind
from seqtok.runs.train import train_run

PROMPTS, FIRST = 1000, 5000  # test scenes from the 5000th on
PICTURES = 5000  # of a Frechet distance
STEPS = {
    "next_token": {"flow": (1, 2, 4, 6, 10), "mean_flow": (1, 2, 3, 4, 6), "diffusion": (100,)},
    "noisy_copies": {"flow": (4, 6)},
    "full_image": {"flow": (10, 25, 50)},
    "scales": {"flow": (4, 6)},
}
_FULL = ["model.sequence={kind: full_image}"]
CONTESTANTS: dict[str, list[str]] = {
    kind: [f"model.head.kind={kind}"] for kind in ("flow", "mean_flow", "diffusion", "mse", "gaussian", "mixture")
} | {
    "full_image": _FULL,
    "staggered": [*_FULL, "model.sequence.stagger=4"],
    "noisy_copies": ["model.sequence.kind=noisy_copies"],
    "scales": ["model.sequence={kind: scales, groups: [1, 1, 2, 4, 8]}"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--sequences", type=int, default=130_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samplings", type=int, default=2, help="of a Frechet distance")
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    kept = json.loads(args.results.read_text()) if args.results and args.results.is_file() else {}
    runs: dict[str, Any] = kept.get("runs", {})
    reader = load_or_train_reader(args.demo / "reader", ReaderConfig())
    for name in args.only:
        folder = args.out / f"{name}-{args.seed}"
        words = [*CONTESTANTS[name], f"train.images={args.sequences}", *args.settings]
        seconds = trained(args.demo, folder, words, args.seed)
        found = judged(str(folder / "model"), str(args.demo / "tokenizer" / "model"), reader, args.samplings)
        about = {"machine": describe_machine(), "settings": words, "training_seconds": seconds}
        runs.setdefault(name, {})[str(args.seed)] = {**about, **found}
        print(name, json.dumps(found["short"]))
        if args.results:
            whole = {"prompts": PROMPTS, "pictures": PICTURES, "runs": runs}
            args.results.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")


def trained(demo: Path, folder: Path, words: list[str], seed: int) -> float | None:
    """Seconds of training; None where the model was there."""
    if (folder / "model").is_dir():
        return None
    own = [f"data.folder={demo / 'latents'}", f"out={folder}", f"train.seed={seed}", f"objective.seed={seed}"]
    result = train_run(load_kind(GeneratorRun, "demo-generator", [*own, *words]))
    return None if result is None else round(result.seconds, 1)


def judged(model: str, tokenizer_model: str, reader: SceneReader, samplings: int) -> dict[str, Any]:
    """Every figure of one model."""
    generator, tokenizer = load_pair(model, tokenizer_model)
    scenes = [make_scene(0, index, "test") for index in range(FIRST, FIRST + PROMPTS)]
    prompts = [scene.captions[3] for scene in scenes]
    real = generation.read_pictures(reader, generation.real_pictures(scenes, tokenizer.config.image_size))
    chance, ceiling = generation.chance_verdicts(real, scenes, 3), generation.judge(real, scenes, 3)
    found: dict[str, Any] = {"short": {}}
    usual = SampleConfig(guidance=2.0, temperature=0.6)
    if generator.config.sequence.kind == "full_image":
        usual = usual.changed(flow={"steps": 25})
    for how, config in (("guided", usual), ("unguided", usual.changed(guidance=1.0, temperature=1.0))):
        pictures = _pictures(generator, tokenizer, prompts, config, 0)
        verdicts = generation.judge(generation.read_pictures(reader, pictures), scenes, 3)
        found[how] = generation.summarise_verdicts(verdicts, chance, ceiling, scenes)
        found["short"][how] = round(found[how]["everything"]["value"], 4)
        found.setdefault("variety", {})[how] = measure_variety(tokenizer, generator, scenes[:VARIED], reader, config, 0)
    found["by_level"] = {}
    for level in range(FINEST):  # prompts that say less
        pictures = _pictures(generator, tokenizer, [scene.captions[level] for scene in scenes], usual, 0)
        verdicts = generation.judge(generation.read_pictures(reader, pictures), scenes, level)
        found["by_level"][LEVELS[level]] = generation.share(verdicts, "everything")
    found["frechet"] = _frechet(generator, tokenizer, reader, samplings)
    found["short"]["frechet"] = {key: round(row["distance"], 3) for key, row in found["frechet"].items()}
    if generator.writes:
        said, _ = evaluate_captions(tokenizer, generator, scenes, tokenizer.config.image_size, CaptionEvaluation())
        found |= {key: said[key] for key in ("captions", "captions_right", "captions_by_prefix") if key in said}
        found["short"]["captions"] = round(said["captions"]["everything"]["value"], 4)
    return found


def _frechet(generator: SeqGenerator, tokenizer: SeqTokenizer, reader: SceneReader, samplings: int) -> dict[str, Any]:
    """Steps of the solver -> distance, mean and each of several samplings; also of real and of rebuilt pictures."""
    size = tokenizer.config.image_size
    halves = [[make_scene(0, i, "val") for i in range(start, start + PICTURES)] for start in (0, PICTURES)]
    asked, other = halves
    real, same = (generation.real_pictures(half, size) for half in (other, asked))
    target = reader.features(real)
    latents = encode_all(tokenizer, same)
    found: dict[str, Any] = {
        "real": {
            "distance": frechet_distance(reader.features(same), target),
            "note": frechet_note(PICTURES, target.shape[1]),
        },
        "rebuilt": {
            "distance": frechet_distance(reader.features(decode_all(tokenizer, latents, latents.shape[1])), target)
        },
    }
    kind, plain = generator.head_kind, SampleConfig(guidance=1.0, temperature=1.0)
    choices = STEPS[generator.config.sequence.kind].get(kind, ())
    for steps in choices or (1,):
        config = plain.changed(**{kind: {"steps": steps}}) if choices else plain
        distances, start = [], time.perf_counter()
        for seed in range(samplings):
            pictures = _pictures(generator, tokenizer, [scene.captions[3] for scene in asked], config, seed)
            distances.append(frechet_distance(reader.features(pictures), target))
        seconds = (time.perf_counter() - start) / (samplings * PICTURES)
        found[str(steps)] = {
            "distance": sum(distances) / samplings,
            "each": distances,
            "seconds_per_image": round(seconds, 5),
        }
    return found


def _pictures(
    generator: SeqGenerator, tokenizer: SeqTokenizer, prompts: list[str], config: SampleConfig, seed: int
) -> Tensor:
    with torch.no_grad():
        latents = generator.sample(prompts, config, seed=seed)
        return decode_all(tokenizer, latents, latents.shape[1])


if __name__ == "__main__":
    main()
