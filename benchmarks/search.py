"""Drawings chosen by the tokenizer's own text space: plain sampling, best of 8, beams, and what each costs.

    python -m benchmarks.search GENERATOR TOKENIZER READER [--prompts 1000] [--results FILE]

Test scenes that no setting was chosen on, half of them combinations that training never holds, with and without
guidance. No caption of the picture and no reader is asked: the score is the cosine between what the tokens drawn so
far say and the prompt.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from ar_model import SampleConfig
from ar_model.sampling import SearchConfig
from benchmarks.generators import FIRST
from benchmarks.machine import describe_command, describe_machine
from data_pipelines.scenes import make_scene
from seq_tokenizer.prefixes import decode_all
from seqtok.evaluation.scenes import generation
from seqtok.evaluation.scenes.reader_folder import load_or_train_reader
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.pictures.sample import load_pair
from seqtok.pictures.verifier import prompt_score

SEARCHES = {
    "plain": SearchConfig(),
    "best of 8": SearchConfig(candidates=8),
    "4 beams of 2": SearchConfig(beams=4, candidates=2),
    "4 beams of 4": SearchConfig(beams=4, candidates=4),
}
SAMPLES = {"guided": SampleConfig(guidance=2.0, temperature=0.6), "unguided": SampleConfig(guidance=1.0)}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("reader", type=Path)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    generator, tokenizer = load_pair(args.generator, args.tokenizer)
    reader = load_or_train_reader(args.reader, ReaderConfig())
    scenes = [make_scene(0, index, "test") for index in range(FIRST, FIRST + args.prompts)]
    prompts = [scene.captions[3] for scene in scenes]
    runs: dict[str, Any] = {}
    for how, sample in SAMPLES.items():
        for name, search in SEARCHES.items():
            start = time.perf_counter()
            score = prompt_score(generator, tokenizer, prompts, search)
            latents = generator.sample(prompts, sample, **search.model_dump(), score=score)
            seconds = (time.perf_counter() - start) / len(prompts)
            pictures = decode_all(tokenizer, latents, latents.shape[1])
            verdicts = generation.judge(generation.read_pictures(reader, pictures), scenes, 3)
            row: dict[str, Any] = {"seconds_per_image": round(seconds, 4)}
            for part, wanted in (("seen", False), ("unseen", True)):
                own = [v for v, scene in zip(verdicts, scenes, strict=True) if scene.unseen == wanted]
                value = generation.share(own, "everything") or 0.0
                row[part] = {"value": value, "interval": generation.wilson(value, len(own))}
            runs[f"{how}, {name}"] = row
            print(f"{how}, {name}", json.dumps(row))
    if args.results:
        found = {"machine": describe_machine(), "command": describe_command("search"), "runs": runs}
        args.results.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
