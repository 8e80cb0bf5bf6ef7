"""What guidance by a weaker model is worth, beside guidance by what is drawn without the prompt.

    python -m benchmarks.sequences.guidance GENERATOR WEAK TOKENIZER READER [--results FILE]

WEAK is the same model trained shorter (Karras et al. 2024, arXiv:2406.02507). The scale is chosen for each of both on
400 scenes of the val split, by everything right; then on test scenes that nothing was chosen on: everything right,
places of one prompt's drawings beside real ones, and the Frechet distance in the reader's features of 5,000 pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ar_model import SampleConfig, SeqGenerator
from benchmarks.generators import FIRST, PROMPTS
from benchmarks.machine import describe_command, describe_machine
from data_pipelines.scenes import Scene, make_scene
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all
from seqtok.evaluation.metrics.sets.frechet import frechet_distance
from seqtok.evaluation.report.protocol import VARIED
from seqtok.evaluation.runners.generation import measure_variety
from seqtok.evaluation.scenes import generation
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.reader_folder import load_or_train_reader
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.pictures.sample import load_pair

SCALES = (1.25, 1.5, 2.0, 3.0, 4.0)
CHOSEN_ON, PICTURES = 400, 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path)
    parser.add_argument("weak", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("reader", type=Path)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    generator, tokenizer = load_pair(args.generator, args.tokenizer)
    reader = load_or_train_reader(args.reader, ReaderConfig())
    runs: dict[str, Any] = {"nothing": judged(generator, tokenizer, reader, SampleConfig(guidance=1.0))}
    print("nothing", json.dumps(runs["nothing"]))
    for name, weak in (("no prompt", None), ("weaker model", str(args.weak))):
        tried = {scale: SampleConfig(guidance=scale, weak=weak) for scale in SCALES}
        scenes = [make_scene(0, index, "val") for index in range(CHOSEN_ON)]
        right = {str(scale): _right(generator, tokenizer, reader, scenes, config) for scale, config in tried.items()}
        best = max(SCALES, key=lambda scale: right[str(scale)])
        runs[name] = {"val": right, "scale": best, **judged(generator, tokenizer, reader, tried[best])}
        print(name, json.dumps(runs[name]))
    if args.results:
        about = {"machine": describe_machine(), "command": describe_command("sequences.guidance")}
        args.results.write_text(json.dumps({**about, "runs": runs}, indent=1, sort_keys=True) + "\n")


def judged(
    generator: SeqGenerator, tokenizer: SeqTokenizer, reader: SceneReader, config: SampleConfig
) -> dict[str, Any]:
    scenes = [make_scene(0, index, "test") for index in range(FIRST, FIRST + PROMPTS)]
    found: dict[str, Any] = {}
    for part, unseen in (("seen", False), ("unseen", True)):
        own = [scene for scene in scenes if scene.unseen == unseen]
        value = _right(generator, tokenizer, reader, own, config)
        found[part] = {"value": value, "interval": generation.wilson(value, len(own))}
    found["variety"] = measure_variety(tokenizer, generator, scenes[:VARIED], reader, config, 0)
    asked, other = ([make_scene(0, i, "val") for i in range(first, first + PICTURES)] for first in (0, PICTURES))
    latents = generator.sample([scene.captions[3] for scene in asked], config)
    drawn = reader.features(decode_all(tokenizer, latents, latents.shape[1]))
    real = reader.features(generation.real_pictures(other, tokenizer.config.image_size))
    found["frechet"] = frechet_distance(drawn, real)
    return found


def _right(
    generator: SeqGenerator, tokenizer: SeqTokenizer, reader: SceneReader, scenes: list[Scene], config: SampleConfig
) -> float:
    latents = generator.sample([scene.captions[3] for scene in scenes], config)
    pictures = decode_all(tokenizer, latents, latents.shape[1])
    verdicts = generation.judge(generation.read_pictures(reader, pictures), scenes, 3)
    return generation.share(verdicts, "everything") or 0.0


if __name__ == "__main__":
    main()
