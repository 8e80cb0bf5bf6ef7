"""How many characters a code holds: bottlenecks of as many tokens, channels and bits beside each other, on glyphs.

    python -m benchmarks.capacity OUT [SETTING ...] [--only NAME ...] [--images N] [--seeds 0 1 2] [--results FILE]

Every contestant is `glyphs-tokenizer` with another bottleneck, and SETTINGs for all: 32 tokens of 5 channels, the same
layers, 12.0 to 12.1 bits a token where something bounds them; `kl` is priced, not bounded, and its rate is measured.
Of each a tokenizer is trained on N of the pages in OUT/data, which are drawn once; then held-out pages of 1, 2, 4, ...
64 characters pass through it and are read by the reader in OUT/reader. What is there already is not made again, and
FILE is written after each.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_command, describe_machine
from data_pipelines.glyphs import load_typeface, make_page
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.vocabulary import FILE as CAPTIONS
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.sources.drawn import GlyphsSource
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.evaluation.capacity.judgement import CapacityConfig
from seqtok.evaluation.capacity.reader_training import draw_pages
from seqtok.evaluation.metrics.reconstruction import reconstruction
from seqtok.runs.judge.capacity import judge_capacity
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok.runs.train import train_run

CONTESTANTS: dict[str, list[str]] = {
    "rms": [],  # as the config has it: noise that leaves a token 12.1 bits
    "kl": ["model.bottleneck={kind: kl}"],
    "vq": ["model.bottleneck={kind: vq, codebook_size: 4096}"],
    "fsq": ["model.bottleneck={kind: fsq, levels: [7, 5, 5, 5, 5]}"],  # 4375 entries
}
_HELD_OUT = 300  # pages whose PSNR is measured
_VOCABULARY = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--images", type=int, help="of a training; by default the config's")
    parser.add_argument("--pages", type=int, default=40_000, help="for training")
    parser.add_argument("--pictures", type=int, default=500, help="pages of each number of characters")
    parser.add_argument("--published", type=int, default=0, help="of them that a published reader reads, too")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    kept = json.loads(args.results.read_text()) if args.results and args.results.is_file() else {}
    runs: dict[str, dict[str, Any]] = kept.get("runs", {})
    draw(args.out / "data", args.pages)
    common = [*args.settings, *([f"train.images={args.images}"] if args.images else [])]
    asked = CapacityConfig(pictures=args.pictures, published=args.published)
    for seed in args.seeds:
        for name in args.only:
            found = contest(args.out, name, [*common, *CONTESTANTS[name]], seed, asked)
            runs.setdefault(name, {})[str(seed)] = {"machine": describe_machine(), **found}
            print(name, json.dumps(found["short"]))
            if args.results:
                whole = {"command": describe_command("capacity"), "runs": runs}
                args.results.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")


def draw(folder: Path, pages: int) -> None:
    """Pages for training, and the captions model that a training asks for."""
    typeface = load_typeface()
    prepare(
        {"train": GlyphsSource("train", pages, typeface)}, folder, PrepareConfig(name="glyphs", size=typeface.page_size)
    )
    if not (folder / CAPTIONS).is_file():
        train_vocabulary(folder, _VOCABULARY)


def contest(out: Path, name: str, settings: list[str], seed: int, config: CapacityConfig) -> dict[str, Any]:
    """Train what is missing, judge -> the section `capacity`, PSNR by prefix, and in short what is read."""
    folder = out / f"{name}-{seed}"
    words = [f"data.folder={out / 'data'}", f"out={folder}", f"train.seed={seed}", f"objective.seed={seed}", *settings]
    run = load_kind(TokenizerRun, "glyphs-tokenizer", words)
    result = None if (folder / "model").is_dir() else train_run(run)
    model = str(folder / "model")
    section = judge_capacity(model, out / "reader", config, None)["capacity"]
    read = {way: {n: round(row["value"], 4) for n, row in rows.items()} for way, rows in section["ways"].items()}
    return {
        "settings": settings,
        "images": run.train.images,
        "training_seconds": None if result is None else round(result.seconds, 1),
        "psnr": held_out_psnr(model),
        "capacity": section,
        "short": {"code_bits": section["code_bits"], **read},
    }


def held_out_psnr(model: str) -> dict[str, float]:
    """k -> dB, of pages of all numbers of characters."""
    tokenizer = SeqTokenizer.from_pretrained(model)
    pages = draw_pages([make_page(0, index, "test") for index in range(_HELD_OUT)], load_typeface())
    latents = encode_all(tokenizer, pages)
    decoded = {k: decode_all(tokenizer, latents, k) for k in prefix_lengths(latents.shape[1])}
    return reconstruction(decoded, pages)["psnr"]


if __name__ == "__main__":
    main()
