"""What the first tokens show: the text-taught order beside the text-less tokenizer and a fixed order, on drawn scenes.

    python -m benchmarks.prefix_truth DATA OUT [--seeds 0 1 2] [--only CONTESTANT ...] [--results FILE]

DATA is a folder of scenes as `seqtok demo` draws them (40,000 for training). For each contestant and seed: a tokenizer
of 230,000 images, its latents, a sequence model of 130,000 sequences, then pictures drawn from prefixes of 500 held-out
scenes, judged by the reader in OUT/reader. About 25 minutes each on one core. What is there already is not made again,
and FILE is written after each. All have K = 16 tokens of D = 8 channels, the same layers and, within 0.5 %, FLOPs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ar_model.sampling import SampleConfig
from benchmarks.machine import describe_machine
from seqtok.evaluation.scenes.prefix_truth import PrefixTruthConfig
from seqtok.export.run import export_latents
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.judge.models import judge_prefixes, judge_reconstruction
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok.runs.train import train_run

NO_TEXT = ["model.text=null", "model.writer=null", "objective.write=null"]
CONTESTANTS = {"text_on_every_prefix": [], "no_text": NO_TEXT} | {
    order: [*NO_TEXT, "model.encoder.kind=grid", f"model.encoder.order={order}"]
    for order in ("raster", "spiral_out", "z_order", "random")
}
GENERATOR = ["objective.finest_share=0.5"]
LEVELS = ("count", "shapes", "colors", "details")
# Chosen on 300 scenes that are not those of the judgement.
DRAWN = PrefixTruthConfig(sample=SampleConfig(guidance=1.5).changed(flow={"steps": 8}), seeds=2, candidates=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    kept = json.loads(args.results.read_text()) if args.results and args.results.is_file() else {}
    runs: dict[str, dict[str, Any]] = kept.get("runs", {})
    for seed in args.seeds:
        for name in args.only:
            runs.setdefault(name, {})[str(seed)] = contest(args.data, args.out, name, seed)
            found = {"machine": describe_machine(), "scenes": summary(runs), "runs": runs}
            if args.results:
                args.results.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def contest(data: Path, out: Path, name: str, seed: int) -> dict[str, Any]:
    """Train what is missing, judge -> shares by level and attribute, PSNR by prefix."""
    folder = out / f"{name}-{seed}"
    tokenizer, generator = folder / "tok", folder / "gen"
    if not (tokenizer / "model").is_dir():
        words = [f"data.folder={data}", f"out={tokenizer}", f"train.seed={seed}", f"objective.seed={seed}"]
        train_run(load_kind(TokenizerRun, "demo-tokenizer", [*words, *CONTESTANTS[name]]))
    export_latents(tokenizer / "model", data, folder / "latents")
    if not (generator / "model").is_dir():
        words = [f"data.folder={folder / 'latents'}", f"out={generator}", f"tokenizer={tokenizer / 'model'}"]
        words += [f"train.seed={seed}", f"objective.seed={seed}"]
        train_run(load_kind(GeneratorRun, "demo-generator", [*words, *GENERATOR]))
    models = str(generator / "model"), str(tokenizer / "model")
    truth = judge_prefixes(*models, out / "reader", 500, DRAWN, 0, None)
    psnr = judge_reconstruction(models[1], data, "test", 2000, None)["psnr"]
    return {
        "psnr": psnr,
        "drawn": truth["prefix_truth"],
        "decoded": truth["decoded_truth"],
        "asked": DRAWN.model_dump(mode="json"),
    }


def summary(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Contestant -> level -> k -> mean over seeds, with the standard deviation where there are several."""
    return {
        name: {
            level: {
                k: _mean(value["drawn"]["levels"][level]["value"][k] for value in seeds.values()) for k in _ks(seeds)
            }
            for level in LEVELS
        }
        for name, seeds in runs.items()
    }


def _ks(seeds: dict[str, Any]) -> list[str]:
    return sorted(next(iter(seeds.values()))["psnr"], key=int)


def _mean(values: Any) -> dict[str, float]:
    found = list(values)
    return {"mean": fmean(found)} | ({"std": stdev(found)} if len(found) > 1 else {})


if __name__ == "__main__":
    main()
