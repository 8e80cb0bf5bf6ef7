"""Tens of thousands of drawn pictures as one file, as ADM's evaluator and its followers take them: samples.npz, whose
`arr_0` is (N, H, W, 3) uint8 (Dhariwal and Nichol 2021, arXiv:2105.05233).

Drawn in parts of which a stop loses at most one: the same command goes on.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ar_model import SampleConfig, SeqGenerator
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.files import atomic_write, folder_lock, read_json, write_json
from seqtok_core.layers.randomness import Draws

SAMPLES, REQUEST, _PARTS = "samples.npz", "samples.json", "parts"
_PICTURES = "arr_0.npy"  # member of an .npz
_DRAWN_AT_ONCE = 500  # pictures of a part: what they are depends on it
_READ_AT_ONCE = 250


class SampleSetConfig(Config):
    """Which pictures are drawn."""

    count: int = Field(50_000, ge=2)
    # even: the prompts in turn, each as often; random: each picture's drawn by `seed`, as likely one as another.
    labels: Literal["even", "random"] = "even"
    sample: SampleConfig = SampleConfig()
    seed: int = Field(0, ge=0, lt=1 << 20)


def set_prompts(prompts: Sequence[str], config: SampleSetConfig) -> list[str]:
    """The prompt of every picture."""
    if config.labels == "even":
        return [prompts[number % len(prompts)] for number in range(config.count)]
    u = Draws.alike(config.seed, 1, torch.device("cpu")).uniform("label", (config.count,))[0]
    return [prompts[int(place * len(prompts))] for place in u.tolist()]


def draw_set(
    generator: SeqGenerator,
    tokenizer: SeqTokenizer,
    prompts: Sequence[str],
    config: SampleSetConfig,
    out: Path,
    say: Callable[[int], None] = lambda drawn: None,
) -> Path:
    """-> `out`/samples.npz, drawn where it is not there yet; beside it what was asked and used, samples.json. `say`:
    told how many pictures there are, part by part. Raises ConfigError where `out` holds another set."""
    request = {
        "generator": generator.model_id,
        "tokenizer": generator.spec.tokenizer_id,
        "prompts": len(prompts),
        "prompts_sha256": sha256("\n".join(prompts).encode()).hexdigest(),
        **config.model_dump(mode="json"),
    }
    file, parts = out / SAMPLES, out / _PARTS
    with folder_lock(out):
        if (out / REQUEST).is_file():
            _require_same(read_json(out / REQUEST), request, out)
        else:
            write_json(out / REQUEST, request)
        if not file.is_file():
            wanted = set_prompts(prompts, config)
            for number, first in enumerate(range(0, config.count, _DRAWN_AT_ONCE)):
                own = wanted[first : first + _DRAWN_AT_ONCE]
                part = parts / f"{number:06d}.npy"
                if not part.is_file():
                    # A prompt's pictures in other parts are others: each has random numbers of its own.
                    latents = generator.sample(own, config.sample, seed=(config.seed << 20) + number)
                    pictures = decode_all(tokenizer, latents, latents.shape[1])
                    with atomic_write(part) as stream:
                        np.save(stream, pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy())
                say(first + len(own))
            _join(sorted(parts.glob("*.npy")), config.count, file)
        shutil.rmtree(parts, ignore_errors=True)
    return file


def holds_pictures(file: Path) -> bool:
    """Whether an .npz that can be opened has some."""
    with zipfile.ZipFile(file) as archive:
        return _PICTURES in archive.namelist()


def pictures_of_file(file: Path) -> Iterator[Tensor]:
    """The pictures of an .npz in parts, (n, 3, H, W) uint8. Raises DataError naming the file where it holds none."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(_PICTURES) as stream:
            count, *shape = _require_pictures(*_header(stream), file)
            size = int(np.prod(shape))
            for first in range(0, count, _READ_AT_ONCE):
                own = min(_READ_AT_ONCE, count - first)
                values = np.frombuffer(stream.read(own * size), np.uint8)
                yield torch.from_numpy(values.reshape(own, *shape).copy()).permute(0, 3, 1, 2)
    except KeyError:
        raise DataError(f"{file}: has no arr_0, the pictures") from None
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{file}: cannot be read as pictures ({error})") from None


def _require_same(known: dict[str, Any], request: dict[str, Any], out: Path) -> None:
    if other := [name for name, value in request.items() if known.get(name) != value]:
        raise ConfigError(
            f"{out}: holds another set of pictures ({', '.join(other)} differ, see {REQUEST}); name another folder"
        )


def _join(parts: Sequence[Path], count: int, file: Path) -> None:
    """One file of them all, part after part: they need not fit into memory."""
    shape = (count, *np.load(parts[0], mmap_mode="r").shape[1:])
    with (
        atomic_write(file) as stream,
        zipfile.ZipFile(stream, "w") as archive,
        archive.open(_PICTURES, "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for part in parts:
            member.write(np.load(part).tobytes())


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, Any]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _require_pictures(shape: tuple[int, ...], fortran: bool, dtype: Any, file: Path) -> tuple[int, ...]:
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8 or fortran:
        raise DataError(f"{file}: arr_0 is {shape} {dtype}, not pictures (N, H, W, 3) uint8")
    return shape
