"""What choosing among several is worth, and what it costs.

    python -m benchmarks.sequences.search drawings|captions GENERATOR TOKENIZER READER [--judge TOKENIZER] [--name NAME]
        [--only SEARCH ...] [--prompts 1000] [--results FILE]

drawings: plain sampling, best of 8, beams, with and without guidance. No caption of the picture and no reader is asked:
the score is the cosine between what the tokens drawn so far say and the prompt, in the tokenizer's own text space; or,
of every order alike, between the picture drawn so far and the prompt in the text space of another tokenizer, the judge.
captions: of several the one that the picture is drawn from best.
Test scenes that no setting was chosen on, half of them combinations that training never holds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ar_model import SampleConfig, SeqGenerator
from ar_model.sampling import Score, SearchConfig
from benchmarks.generators import FIRST
from benchmarks.machine import describe_command, describe_machine
from data_pipelines.scenes import Scene, make_scene
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all, encode_all, text_match
from seqtok.evaluation.scenes import generation
from seqtok.evaluation.scenes.captions import attributes_right, caption_verdicts, summarise_captions
from seqtok.evaluation.scenes.reader import SceneReader
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
CANDIDATES = (1, 8, 32)  # captions of a picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("drawings", "captions"))
    parser.add_argument("generator", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("reader", type=Path)
    parser.add_argument("--judge", type=Path, help="tokenizer with a text tower, of the same words")
    parser.add_argument("--name", help="of these figures in the file, instead of drawings or captions")
    parser.add_argument("--only", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    generator, tokenizer = load_pair(args.generator, args.tokenizer)
    scenes = [make_scene(0, index, "test") for index in range(FIRST, FIRST + args.prompts)]
    if args.what == "captions":
        runs = captions(generator, tokenizer, scenes)
    else:
        judge = None if args.judge is None else SeqTokenizer.from_pretrained(args.judge)
        reader = load_or_train_reader(args.reader, ReaderConfig())
        runs = drawings(generator, tokenizer, reader, scenes, judge, args.only)
    if args.results:
        kept = json.loads(args.results.read_text()) if args.results.is_file() else {}
        about = {"machine": describe_machine(), "command": describe_command("sequences.search")}
        found = {**kept, args.name or args.what: {**about, "runs": runs}}
        args.results.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


@torch.no_grad()
def drawings(
    generator: SeqGenerator,
    tokenizer: SeqTokenizer,
    reader: SceneReader,
    scenes: Sequence[Scene],
    judge: SeqTokenizer | None,
    names: Sequence[str],
) -> dict[str, Any]:
    prompts = [scene.captions[3] for scene in scenes]
    runs: dict[str, Any] = {}
    for how, sample in SAMPLES.items():
        for name in names:
            search = SEARCHES[name]
            start = time.perf_counter()
            score = _score(generator, tokenizer, prompts, search, judge)
            latents = generator.sample(prompts, sample, **search.model_dump(), score=score)
            seconds = (time.perf_counter() - start) / len(prompts)
            pictures = decode_all(tokenizer, latents, latents.shape[1])
            verdicts = generation.judge(generation.read_pictures(reader, pictures), scenes, 3)
            runs[f"{how}, {name}"] = row = {"seconds_per_image": round(seconds, 4)} | _right(verdicts, scenes)
            print(f"{how}, {name}", json.dumps(row))
    return runs


def _score(
    generator: SeqGenerator,
    tokenizer: SeqTokenizer,
    prompts: Sequence[str],
    search: SearchConfig,
    judge: SeqTokenizer | None,
) -> Score | None:
    if judge is None or not search.chooses:
        return prompt_score(generator, tokenizer, prompts, search)
    matches = text_match(judge, generator.encode_prompts(prompts))

    def score(latents: Tensor) -> Tensor:
        return matches(encode_all(judge, decode_all(tokenizer, latents, latents.shape[1])))

    return score


@torch.no_grad()
def captions(generator: SeqGenerator, tokenizer: SeqTokenizer, scenes: Sequence[Scene]) -> dict[str, Any]:
    latents = encode_all(tokenizer, generation.real_pictures(scenes, tokenizer.config.image_size))
    runs: dict[str, Any] = {}
    for candidates in CANDIDATES:
        start = time.perf_counter()
        said = generator.caption(latents, candidates=candidates)
        seconds = (time.perf_counter() - start) / len(scenes)
        row = {"seconds_per_image": round(seconds, 4)} | _right(caption_verdicts(said, scenes), scenes)
        row["attributes"] = attributes_right(summarise_captions(said, scenes))
        runs[str(candidates)] = row
        print(candidates, json.dumps(row))
    return runs


def _right(verdicts: Sequence[generation.Verdict], scenes: Sequence[Scene]) -> dict[str, Any]:
    """Share with everything right, of seen and of unseen combinations."""
    found = {}
    for part, wanted in (("seen", False), ("unseen", True)):
        own = [v for v, scene in zip(verdicts, scenes, strict=True) if scene.unseen == wanted]
        value = generation.share(own, "everything") or 0.0
        found[part] = {"value": value, "interval": generation.wilson(value, len(own))}
    return found


if __name__ == "__main__":
    main()
