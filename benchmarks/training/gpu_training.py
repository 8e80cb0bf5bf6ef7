"""Tokenizer and sequence model trained on this machine's GPUs: MFU, images/s, memory, pictures; plan beside reality.

    python -m benchmarks.training.gpu_training WORK_FOLDER [--minutes 8] [--gpus N] [--results benchmarks/results]
    python -m benchmarks.training.gpu_training WORK_FOLDER --device cpu --size tiny --minutes 1  (a rehearsal)

Draws scenes, asks `seqtok plan --measure` for the time of a step, chooses as many images as fit into --minutes (40 %
of it for the tokenizer, 40 % for the sequence model), trains both with the commands that users call, samples, and
writes gpu_training.json, gpu_strip.png and gpu_samples.png into --results.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_command, describe_machine

_PROMPTS = (
    "a large red circle left of a small blue square on white",
    "a small green triangle above a large yellow star on black",
    "a large purple square right of a small cyan circle on gray",
)


@dataclass(frozen=True)
class Size:
    """Scenes of `pixels`, and changes to the shipped configs."""

    scenes: int
    pixels: int
    tokenizer: tuple[str, ...]
    generator: tuple[str, ...]


def _model(width: int, heads: int, layers: int, patch: int, latents: int, dim: int) -> tuple[str, ...]:
    return (
        *(f"model.width={width}", f"model.heads={heads}", f"model.patch_size={patch}"),
        *(f"model.encoder_layers={layers}", f"model.decoder_layers={layers}"),
        *(f"model.num_latents={latents}", f"model.latent_dim={dim}", "objective.contrast.level_starts=null"),
        *("model.writer=null", "objective.write=null"),
    )


SIZES = {
    "tiny": Size(
        400,
        32,
        (*_model(32, 2, 1, 8, 4, 4), "model.image_size=32", "train.batch=16"),
        ("model.width=32", "model.heads=2", "model.depth=1", "train.batch=16"),
    ),
    "small": Size(
        20_000,
        64,
        (*_model(512, 8, 8, 8, 32, 16), "model.image_size=64", "train.batch=512", "train.lr=1e-3"),
        ("model.width=768", "model.heads=12", "model.depth=12", "train.batch=512", "train.lr=5e-4"),
    ),
    "large": Size(
        20_000,
        64,
        (*_model(1024, 16, 12, 4, 32, 16), "model.image_size=64", "train.batch=512", "train.lr=5e-4"),
        ("model.width=1280", "model.heads=20", "model.depth=24", "train.batch=512", "train.lr=3e-4"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--set", nargs="*", default=[], help="further changes to both trainings: train.zero_stage=2 …")
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    os.environ["DS_ACCELERATOR"] = args.device
    bench = _Bench(args.folder, SIZES[args.size], args.gpus, args.device, args.set)
    about = {"command": describe_command("gpu_training"), "machine": describe_machine()}
    about |= {"gpus": args.gpus, "device": args.device}
    for rows in bench.run(60 * args.minutes):
        print(json.dumps(rows, indent=1), flush=True)
        if args.results:  # after every stage: a machine may be taken back before the last
            args.results.mkdir(parents=True, exist_ok=True)
            (args.results / "gpu_training.json").write_text(json.dumps({**about, "trainings": rows}, indent=1) + "\n")
            for name in ("strip.png", "samples.png"):
                if (args.folder / name).is_file():
                    shutil.copyfile(args.folder / name, args.results / f"gpu_{name}")


class _Bench:
    def __init__(self, folder: Path, size: Size, gpus: int, device: str, changes: list[str]) -> None:
        self._folder, self._size, self._gpus, self._device, self._changes = folder, size, gpus, device, changes
        self._scenes, self._latents = folder / "scenes", folder / "latents"

    def run(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What is known after the tokenizer, and after the sequence model and the samples."""
        began = time.monotonic()
        size, scenes = self._size, str(self._scenes)
        count = ["--train", str(size.scenes), "--val", "0", "--test", "64", "--size", str(size.pixels)]
        self._seqtok("data", "scenes", scenes, *count, "--processes", str(os.cpu_count() or 1))
        if not (self._scenes / "captions.model").is_file():
            self._seqtok("data", "text", scenes, "--vocab", "512")
        left = seconds - (time.monotonic() - began)
        words = [*size.tokenizer, f"data.folder={scenes}"]
        tokenizer, model = self._train("tokenizer", "demo-tokenizer", words, 0.4 * left)
        self._strip(model)
        yield {"seconds": round(time.monotonic() - began, 1), "tokenizer": tokenizer}
        self._seqtok("tokenizer", "export", model, scenes, str(self._latents))
        words = [*size.generator, f"data.folder={self._latents}"]
        generator, sampler = self._train("generator", "demo-generator", words, 0.4 * left)
        prompts = [word for prompt in _PROMPTS for word in ("--prompt", prompt)]
        self._seqtok("generator", "sample", sampler, model, *prompts, "--out", str(self._folder / "samples.png"))
        yield {"seconds": round(time.monotonic() - began, 1), "tokenizer": tokenizer, "generator": generator}

    def _train(self, kind: str, config: str, words: list[str], seconds: float) -> tuple[dict[str, Any], str]:
        """Train for about `seconds`; what was planned and what came out, and the model's folder."""
        out = self._folder / kind
        shutil.rmtree(out, ignore_errors=True)
        words = [*words, "train.warmup_images=0", "train.checkpoint_every=null", "train.log_every=10", *self._changes]
        words += ["train.sample_every=null", f"out={out}"]
        plan = self._plan(config, words)
        images = max(40 * plan["batch"]["global"], int(0.8 * seconds * plan["time"]["images_per_s"]))
        words += [f"train.images={images}", f"train.warmup_images={images // 20}"]
        command = ["-m", "seqtok", kind, "train", config, *words]
        if self._gpus > 1:
            command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self._gpus}", *command]
        self._call(*command)
        return {"planned": plan, **_outcome(out)}, str(out / "model")

    def _plan(self, config: str, words: list[str]) -> dict[str, Any]:
        where = ["--gpu", "cpu"] if self._device == "cpu" else []
        said = self._seqtok("plan", config, *words, *where, "--gpus", str(self._gpus), "--measure", "--json")
        answer: dict[str, Any] = json.loads(said[said.index("{\n") :])
        return answer

    def _strip(self, model: str) -> None:
        """Held-out scenes decoded from 1, 2, 4, … tokens."""
        from PIL import Image

        from data_pipelines.scenes import make_scene, render

        files = []
        for index in range(4):
            files.append(self._folder / f"scene{index}.png")
            Image.fromarray(render(make_scene(0, index, "test"), self._size.pixels)).save(files[-1])
        self._seqtok("tokenizer", "reconstruct", model, *map(str, files), "--out", str(self._folder / "strip.png"))

    def _seqtok(self, *words: str) -> str:
        return self._call("-m", "seqtok", *words)

    def _call(self, *words: str) -> str:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: {done.stderr[-3000:]}")
        return done.stdout


def _outcome(out: Path) -> dict[str, Any]:
    """The run's own figures; the first line, in which kernels are chosen, is left out of the speed."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    images_per_s = (last["images"] - first["images"]) / max(last["seconds"] - first["seconds"], 1e-9)
    steady = [line["mfu"] for line in lines[1:] if line.get("mfu") is not None]
    return {
        "images": last["images"],
        "images_per_s": round(images_per_s, 1),
        "mfu": round(sum(steady) / len(steady), 4) if steady else None,
        "memory_gb": last.get("memory_gb"),
        "data_wait": last["data_wait"],
        "last": {name: value for name, value in last.items() if "loss" in name},
        "seconds": last["seconds"],
    }


if __name__ == "__main__":
    main()
