"""Where results go: what cannot be written is one line before the work, logs may lie there, sheets stay bearable."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from seqtok.grids import rows_of_a_page
from seqtok.pictures.sample import save_pages
from tests.seqtok.commands.test_commands import TINY, data, seqtok, tokenizer  # noqa: F401 (fixtures)
from tests.seqtok.commands.test_sampling_command import models  # noqa: F401 (a fixture)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
SHORT = ["train.images=32", "train.batch=16", "train.warmup_images=0", "train.sample_every=null", "train.threads=1"]


def one_line(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    status, _, err = seqtok(capsys, *words)
    said = [line for line in err.splitlines() if not line.startswith(("threads", "precision"))]
    assert status != 0
    assert len(said) == 1, err
    assert said[0].startswith("seqtok: ")
    return said[0]


def strange_places(root: Path) -> dict[str, Path]:
    """What `out` may be by mistake."""
    (root / "file").write_text("precious")
    (root / "dangling").symlink_to(root / "nowhere" / "at" / "all")
    (root / "looped").symlink_to(root / "looped")
    long = root / ("x" * 300)
    places = {"file": root / "file", "in a file": root / "file" / "sub", "link": root / "dangling"}
    places |= {"loop": root / "looped", "long": long, "in long": long / "sub", "no disk": Path("/proc/nowhere")}
    return places


def training(data: Path, out: Path) -> list[object]:  # noqa: F811
    return ["tokenizer", "train", TINY / "tiny-tokenizer.yaml", *SHORT, f"data.folder={data}", f"out={out}"]


PLACES = ["file", "in a file", "link", "loop", "long", "in long", "no disk"]


@pytest.mark.parametrize("place", PLACES)
def test_a_training_into_a_strange_place_is_one_line(place: str, capsys, data: Path, tmp_path: Path):  # noqa: F811
    out = strange_places(tmp_path)[place]
    said = one_line(
        capsys, "tokenizer", "train", TINY / "tiny-tokenizer.yaml", *SHORT, f"data.folder={data}", f"out={out}"
    )
    assert f"{out}: cannot be written" in said
    assert "choose another folder" in said
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["evaluate", "report", "demo", "data", "export"])
def test_other_folders_are_refused_alike(place, command, capsys, data, tokenizer, tmp_path):  # noqa: F811
    out = strange_places(tmp_path)[place]
    (tmp_path / "results.json").write_text('{"schema": 1}')
    words = {
        "evaluate": ("evaluate", "reconstruction", tokenizer, data, "--out", out),
        "report": ("report", tmp_path, "--out", out),
        "demo": ("demo", "--config", TINY / "tiny.yaml", "--out", out),
        "data": ("data", "scenes", out, "--train", 3, "--val", 0, "--test", 0),
        "export": ("tokenizer", "export", tokenizer, data, out),
    }[command]
    assert str(out) in one_line(capsys, *words)


@pytest.mark.parametrize("place", ["folder", "in a file", "long"])
@pytest.mark.parametrize("command", ["edit", "reconstruct", "text", "sheet"])
def test_files_that_cannot_be_written_are_refused_alike(place, command, capsys, data, models, tmp_path):  # noqa: F811
    (tmp_path / "folder.png").mkdir()
    out = {**strange_places(tmp_path), "folder": tmp_path / "folder.png"}[place]
    words = {
        "edit": ("generator", "edit", *models, "no-such.png", "--out", out),
        "reconstruct": ("tokenizer", "reconstruct", models[1], "no-such.png", "--out", out),
        "text": ("data", "text", data, "--out", out),
        "sheet": ("data", "inspect", data, "--contact-sheet", out),
    }[command]
    assert str(out) in one_line(capsys, *words), "and not that there is no picture"


def test_a_folder_that_nobody_may_write_is_refused_before_the_work(capsys, data, tokenizer, monkeypatch, tmp_path):  # noqa: F811
    """Whoever runs the tests may be allowed everything, so the system is asked in their place."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    said = one_line(capsys, "evaluate", "reconstruction", tokenizer, data, "--out", tmp_path / "sub")
    assert "cannot be written (Permission denied" in said


def test_a_log_in_the_folder_is_no_reason_to_refuse_it(capsys, data, tokenizer, tmp_path):  # noqa: F811
    commands = {
        "run": (
            "tokenizer",
            "train",
            TINY / "tiny-tokenizer.yaml",
            *SHORT,
            f"data.folder={data}",
            f"out={tmp_path / 'run'}",
        ),
        "latents": ("tokenizer", "export", tokenizer, data, tmp_path / "latents"),
        "scenes": ("data", "scenes", tmp_path / "scenes", "--train", 3, "--val", 0, "--test", 0),
        "lossless": ("tokenizer", "lossless", data, tmp_path / "lossless"),
        "model": ("checkpoint", "export", tmp_path / "run", tmp_path / "model"),
    }
    for name, words in commands.items():
        (tmp_path / name).mkdir(exist_ok=True)
        for log in ("train.log", "nohup.out", "slurm-17.err"):
            (tmp_path / name / log).write_text("precious")
        status, _, err = seqtok(capsys, *words)
        assert status == 0, err
        assert (tmp_path / name / "train.log").read_text() == "precious"


def test_a_training_is_reported_from_its_folder(capsys, data, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    words = [TINY / "tiny-tokenizer.yaml", *SHORT, "train.log_every=1", "train.sample_every=16", f"data.folder={data}"]
    assert seqtok(capsys, "tokenizer", "train", *words, f"out={run}")[0] == 0
    with open(run / "metrics.jsonl", "ab") as stream:
        stream.write(b'{"step": 3, "ima\xff')
    status, out, err = seqtok(capsys, "report", run, "--out", tmp_path / "page")
    assert status == 0, err
    page = Path(out.strip()).read_text()
    assert page.count("<figure") >= 5
    assert ">pixel loss</h3>" in page
    found = json.loads((tmp_path / "page" / "results.json").read_text())["training"]
    assert list(found["loss"]) == ["16", "32"]
    assert list(found["psnr_1"]) == ["16", "32"]
    shutil.move(tmp_path / "page", tmp_path / "demo" / "report")
    assert seqtok(capsys, "report", tmp_path / "demo", run, "--out", tmp_path / "both")[0] == 0, "a demo's folder"
    assert "results.json" in one_line(capsys, "report", data, "--out", tmp_path / "none")


def test_a_file_for_each_picture_of_a_folder(capsys, models, tmp_path):  # noqa: F811
    out = tmp_path / "drawn"
    words = ["--prompt", "a red circle", "--prompt", "a/../b " + "é" * 20, "--prompt", "", "--steps", 1, "--out", out]
    status, printed, err = seqtok(capsys, "generator", "sample", *models, *words)
    assert status == 0, err
    files = sorted(out.iterdir())
    assert [str(file) for file in files] == printed.splitlines()
    assert [file.name[:6] for file in files] == ["00000_", "00001_", "00002_"]
    assert files[0].name == "00000_a_red_circle.png"
    assert all(Image.open(file).size == (32, 32) for file in files)


def test_many_rows_are_pages_of_a_bearable_size(tmp_path: Path):
    rows = torch.randint(0, 256, (200, 1, 3, 32, 32), dtype=torch.uint8)
    asked: list[slice] = []

    def of(part: slice) -> list[list[torch.Tensor]]:
        asked.append(part)
        return [list(row) for row in rows[part]]

    pages = save_pages(of, 200, ["16"], 32, tmp_path / "sheet.png")
    assert [page.name for page in pages] == ["sheet-001.png", "sheet-002.png", "sheet-003.png"]
    assert [number for part in asked for number in range(200)[part]] == list(range(200))
    assert all(Image.open(page).height <= 8192 for page in pages)
    assert save_pages(of, 1, ["16"], 32, tmp_path / "sheet.png") == [tmp_path / "sheet.png"]
    assert rows_of_a_page(20_000) == 1


def test_what_git_lfs_left_is_named(capsys, data, models, tmp_path):  # noqa: F811
    generator, tokenizer = (tmp_path / name for name in ("generator", "tokenizer"))  # noqa: F811
    draw = ("generator", "sample", generator, tokenizer, "--prompt", "x", "--out", tmp_path / "x.png")
    for name in ("model.safetensors", "captions.model", "config.json"):
        shutil.rmtree(generator, ignore_errors=True)
        shutil.copytree(models[0], generator)
        shutil.copytree(models[1], tokenizer, dirs_exist_ok=True)
        (generator / name).write_bytes(POINTER)
        said = one_line(capsys, *draw)
        assert f"{generator / name}: a git-lfs pointer" in said
        assert "git lfs pull" in said
    shutil.copytree(data, tmp_path / "data")
    tar = sorted((tmp_path / "data").glob("*train*.tar"))[0]
    tar.write_bytes(POINTER)
    said = one_line(capsys, *training(tmp_path / "data", tmp_path / "run"))
    assert f"{tar}: a git-lfs pointer" in said
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.tar").write_bytes(POINTER)
    assert "a git-lfs pointer" in one_line(capsys, "data", "inspect", tmp_path / "foreign")
    assert "a git-lfs pointer" in one_line(
        capsys, "data", "prepare", tmp_path / "foreign", tmp_path / "out", "--size", 32
    )


def test_a_model_folder_without_words_says_what_to_copy(capsys, data, models, tmp_path):  # noqa: F811
    shutil.copytree(models[0], tmp_path / "generator")
    shutil.copytree(models[1], tmp_path / "tokenizer")
    for name in ("generator", "tokenizer"):
        (tmp_path / name / "captions.model").unlink()
    for words in (
        ("generator", "sample", tmp_path / "generator", models[1], "--prompt", "x", "--out", tmp_path / "x.png"),
        ("tokenizer", "export", tmp_path / "tokenizer", data, tmp_path / "latents"),
        ("evaluate", "reconstruction", tmp_path / "tokenizer", data),
    ):
        said = one_line(capsys, *words)
        assert "copy the captions.model" in said
        assert "data text" not in said


@pytest.mark.parametrize("width", [2**22, 2**42])
def test_a_model_larger_than_the_machine_is_refused_before_memory_is_taken(width: int, capsys, data, tmp_path):  # noqa: F811
    said = one_line(capsys, *training(data, tmp_path / "run"), f"model.width={width}")
    assert "its weights alone take" in said or "cannot be made" in said
    assert not (tmp_path / "run").exists()
