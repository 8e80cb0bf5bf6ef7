"""The whole chain, tiny: one command makes every part, and a kill in any stage changes nothing in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seqtok_core.foundation.files import sha256_file

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "tests" / "configs" / "tiny.yaml"

# stage -> where the process is killed with signal 9.
KILLS = {
    "data": "shards.before_index:1=kill",
    "tokenizer": "training.step:13=kill",
    "export": "latents.before_manifest=kill",
    "generator": "training.step:33=kill",  # the tokenizer's 20 steps come first
}


def run_demo(out: Path, faults: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SEQTOK_FAULTS": faults, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "seqtok", "demo", "--config", str(CONFIG), "--out", str(out)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )


def content(out: Path) -> dict[str, str]:
    """Hashes of what a demo leaves behind: shards, weights, manifests; not the clocks in logs and reports."""
    kept = [p for part in ("data", "latents") for p in (out / part).iterdir() if p.name != "run.lock"]
    kept += [p for part in ("tokenizer", "generator") for p in (out / part / "model").iterdir()]
    return {str(p.relative_to(out)): sha256_file(p) for p in sorted(kept)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "undisturbed"
    done = run_demo(out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(str(out / "report" / "report.html"))
    return out


def test_one_command_makes_every_part(undisturbed: Path):
    results = json.loads((undisturbed / "report" / "results.json").read_text())
    assert set(results["psnr"]) == {"1", "2", "4"}
    assert set(results["retrieval"]) == {"count", "shapes", "colors", "details"}
    assert {"color", "shape", "count", "relation"} <= {name.rstrip("s") for name in results["reader"]}
    assert {"draw scenes", "train tokenizer", "encode scenes", "train sequence model"} <= results["stages"].keys()
    page = (undisturbed / "report" / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    for part in ("tokenizer", "generator"):
        assert (undisturbed / part / "model" / "config.json").is_file()
        assert (undisturbed / part / "metrics.jsonl").read_text().count("\n") > 0
    assert list((undisturbed / "tokenizer" / "samples").glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", KILLS)
def test_killed_in_any_stage_then_started_again(stage: str, undisturbed: Path, tmp_path: Path):
    out = tmp_path / "killed"
    assert run_demo(out, KILLS[stage]).returncode == -signal.SIGKILL
    again = run_demo(out)
    assert again.returncode == 0, again.stderr
    assert content(out) == content(undisturbed)
