"""Capacity on the command line: what each bottleneck says of its bits, what is written, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from seq_tokenizer import SeqTokenizer, TokenizerConfig
from seqtok.evaluation.capacity.judgement import CapacityConfig
from seqtok.evaluation.capacity.reader_training import reader_settings
from seqtok.evaluation.report.report import read_results, render_report
from seqtok.runs.judge import capacity as judge
from seqtok_core.foundation.errors import ConfigError
from tests.seqtok.commands.test_commands import seqtok

LENGTH, DIM = 4, 5
ASKED = CapacityConfig(glyphs=(8, 1), pictures=6, alphabet="ABCD")


@pytest.fixture(autouse=True)
def _small_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"images": 32, "batch": 16, "width": 4}
    monkeypatch.setattr(judge, "reader_settings", lambda faces: reader_settings(faces).model_copy(update=small))


def save(folder: Path, bottleneck: dict[str, Any], size: int = 96) -> Path:
    torch.manual_seed(0)
    shape = {"image_size": size, "patch_size": 16, "num_latents": LENGTH, "latent_dim": DIM, "width": 16, "heads": 2}
    config = TokenizerConfig.parse({**shape, "encoder_layers": 1, "decoder_layers": 1, "bottleneck": bottleneck})
    SeqTokenizer(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("bottleneck", "bits", "said", "ways"),
    [
        ({"kind": "rms", "noise": 0.2}, LENGTH * DIM / 2 * math.log2(26), "at most", ["encoded", "noisy"]),
        ({"kind": "vq", "codebook_size": 64}, LENGTH * 6.0, "at most", ["encoded"]),
        ({"kind": "fsq", "levels": [7, 5, 5, 5, 5]}, LENGTH * math.log2(4375), "at most", ["encoded"]),
        ({"kind": "kl"}, None, "divergence", ["encoded", "noisy"]),
        ({"kind": "rms", "noise": 0.0}, None, "nothing bounds it", ["encoded"]),
        ({"kind": "none"}, None, "nothing bounds it", ["encoded"]),
    ],
)
def test_bits_of_a_code_are_those_of_its_bottleneck(
    tmp_path: Path, bottleneck: dict[str, Any], bits: float | None, said: str, ways: list[str]
) -> None:
    model = save(tmp_path / "model", bottleneck)
    section = judge.judge_capacity(str(model), tmp_path / "reader", ASKED, None)["capacity"]
    assert said in section["code_bits_are"]
    assert list(section["ways"]) == ways
    assert list(section["ways"]["encoded"]) == ["1", "8"], "in ascending order"
    if bits is not None:
        assert section["code_bits"] == pytest.approx(bits, rel=1e-6)
    else:
        assert (section["code_bits"] is None) == (said == "nothing bounds it")


def test_noise_changes_what_is_decoded_and_never_the_pages(tmp_path: Path) -> None:
    tokenizer = SeqTokenizer.from_pretrained(save(tmp_path / "model", {"kind": "rms", "noise": 2.0}))
    for parameter in tokenizer.parameters():  # at its start a decoder looks at nothing
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    ways = judge._ways(tokenizer)
    pages = torch.randint(0, 256, (3, 3, 96, 96), generator=torch.Generator().manual_seed(0)).byte()
    before = pages.clone()
    encoded, noisy = (ways[name](pages) for name in ("encoded", "noisy"))
    assert torch.equal(pages, before)
    assert not torch.equal(encoded, noisy)
    assert torch.equal(noisy, ways["noisy"](pages)), "the same noise every time"
    same = ways["noisy"](pages[:1].expand(2, -1, -1, -1))
    assert not torch.equal(same[0], same[1]), "and for each page its own"


def test_the_command_writes_results_that_the_report_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = save(tmp_path / "model", {"kind": "vq", "codebook_size": 64}), tmp_path / "out"
    words = ["evaluate", "capacity", model, "--reader", tmp_path / "reader", "--pictures", 4, "--alphabet", "XYZ"]
    status, said, _ = seqtok(capsys, *words, "--glyphs", 2, "--glyphs", 64, "--out", out)
    assert status == 0
    assert "4 tokens: 24.0 bits, at most" in " ".join(said.split())
    section = read_results(out)["capacity"]
    assert (section["alphabet"], section["tokens"], list(section["ways"]["encoded"])) == (3, 4, ["2", "64"])
    written = json.loads((tmp_path / "reader" / "config.json").read_text())
    assert section["reader"] == written["weights_sha256"]
    page = render_report(read_results(out))
    assert "Characters of a page that are read back" in page
    assert "4 tokens: 24.0 bits, at most" in page
    assert "Fano" in page


def test_runs_side_by_side_have_a_curve_each(tmp_path: Path) -> None:
    model = save(tmp_path / "model", {"kind": "rms"})
    results = judge.judge_capacity(str(model), tmp_path / "reader", ASKED, None)
    alone = chart_of(render_report({"title": "first", **results}))
    both = chart_of(
        render_report({"title": "first", **results}, others={"second": results, "third": {"title": "third"}})
    )
    assert [name in alone for name in ("as encoded", "with its noise", "real pages", "first")] == [True] * 3 + [False]
    assert [name in both for name in ("first", "second", "third", "with its noise")] == [True] * 2 + [False] * 2
    assert "How much a code holds" not in render_report({"title": "first"})


def chart_of(page: str) -> str:
    """What is drawn in the section on capacity."""
    return page.split("How much a code holds")[1].split("<svg")[1].split("</svg>")[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--glyphs", "0"], "from 1 to 64"),
        (["--glyphs", "65"], "from 1 to 64"),
        (["--alphabet", "AA"], "more than once"),
        (["--alphabet", ""], "fewer than two"),
        (["--alphabet", "A中"], "has no '中'"),
        (["--font", "/no/such.ttf"], "cannot be read as a font"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    model = save(tmp_path / "model", {"kind": "none"})
    status, _, err = seqtok(capsys, "evaluate", "capacity", model, "--reader", tmp_path / "reader", *words)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "reader").exists(), "refused before the reader is trained"


def test_a_tokenizer_of_small_pictures_is_refused(tmp_path: Path) -> None:
    model = save(tmp_path / "model", {"kind": "none"}, size=64)
    with pytest.raises(ConfigError, match=r"takes pages of 64 pixels.*need 96 or more"):
        judge.judge_capacity(str(model), tmp_path / "reader", ASKED, None)
