"""The tensor files of a checkpoint: one safetensors file per process, each a set of named pieces. No pickle.

A key is "kind:start:name" and its values are [start, start + numel) of the flattened tensor `name`, so that a
reader with another number of processes, or another ZeRO stage, takes exactly the ranges that it needs, through
a memory map. Kinds: weight, frozen, buffer, and the optimizer's own (exp_avg, exp_avg_sq, average, step).
Written here and not by the library, which would hold the interpreter for as long as the disk is busy and
would need a second pass for the hash; read by the library.
Format: huggingface.co/docs/safetensors/index#format.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from seqtok_core.foundation import faults
from seqtok_core.foundation.errors import DataError

_TYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}  # widest first: in this order every tensor lies aligned


def piece_key(kind: str, name: str, start: int = 0) -> str:
    return f"{kind}:{start}:{name}"


def file_of(rank: int, processes: int) -> str:
    return f"part_{rank:05d}_of_{processes:05d}.safetensors"


def bytes_of(pieces: Mapping[str, Tensor]) -> int:
    """Size of the file that `write_part` would make."""
    return len(_header(pieces)) + sum(piece.nbytes for piece in pieces.values())


def write_part(path: Path, pieces: Mapping[str, Tensor], rank: int = 0) -> dict[str, Any]:
    """Write, flush to the disk and hash in one pass; returns {"bytes": …, "sha256": …}.

    Tensors elsewhere than on the CPU are fetched one at a time. Equal tensors give equal bytes.
    """
    digest, total = hashlib.sha256(), 0
    with open(path, "wb") as stream:
        for number, chunk in enumerate(_chunks(pieces)):
            if number == 1:
                faults.hit("checkpoint.in_part", rank)
            stream.write(chunk)
            digest.update(chunk)
            total += len(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    return {"bytes": total, "sha256": digest.hexdigest()}


def _order(pieces: Mapping[str, Tensor]) -> list[str]:
    rank = {dtype: place for place, dtype in enumerate(_TYPES)}
    return sorted(pieces, key=lambda key: (rank[pieces[key].dtype], key))


def _header(pieces: Mapping[str, Tensor]) -> bytes:
    entries, offset = {}, 0
    for key in _order(pieces):
        piece = pieces[key]
        span = [offset, offset + piece.nbytes]
        entries[key] = {"dtype": _TYPES[piece.dtype], "shape": [piece.numel()], "data_offsets": span}
        offset += piece.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _chunks(pieces: Mapping[str, Tensor]) -> Iterator[memoryview]:
    yield memoryview(_header(pieces))
    for key in _order(pieces):
        flat = pieces[key].detach().reshape(-1).cpu().contiguous()
        if flat.numel():
            yield flat.view(torch.uint8).numpy().data


class Parts:
    """The pieces in a checkpoint's part files, as one set of named, flattened tensors."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises DataError when a file is no safetensors file, or names something that is no piece."""
        self._files: list[Any] = []
        self._places: dict[tuple[str, str], list[tuple[int, int, int, str]]] = defaultdict(list)
        for path in paths:
            try:
                self._files.append(safetensors.safe_open(path, framework="pt"))
                self._index(len(self._files) - 1)
            except (OSError, safetensors.SafetensorError, ValueError) as error:
                raise DataError(f"{path}: not a part of a checkpoint ({error})") from None
        for places in self._places.values():
            places.sort()

    def _index(self, number: int) -> None:
        file = self._files[number]
        for key in file.keys():  # noqa: SIM118 (not a dict)
            kind, start, name = key.split(":", 2)
            shape = file.get_slice(key).get_shape()
            if len(shape) != 1:
                raise ValueError(f"{key} has the shape {shape}")
            self._places[kind, name].append((int(start), int(start) + shape[0], number, key))

    def kinds(self, name: str) -> set[str]:
        """What is known of the tensor `name`: "weight", "exp_avg", …"""
        return {kind for kind, known in self._places if known == name}

    def names(self, kind: str) -> list[str]:
        return sorted(name for known, name in self._places if known == kind)

    def read_into(self, out: Tensor, kind: str, name: str, start: int = 0) -> None:
        """out (n,) <- values [start, start + n) of a tensor. Raises DataError when the files lack some of them."""
        position, stop = start, start + out.numel()
        for begin, end, number, key in self._places.get((kind, name), []):
            if end <= position or begin >= stop:
                continue
            if begin > position:
                break
            upto = min(end, stop)
            values = self._files[number].get_slice(key)[position - begin : upto - begin]
            out[position - start : upto - start].copy_(values)
            position = upto
        if position < stop:
            raise DataError(f"checkpoint: {kind} of {name} has no values from {position} to {stop}; it is damaged")

    def whole(self, kind: str, name: str, like: Tensor) -> Tensor:
        """A tensor of the shape and type of `like`, on the CPU."""
        out = torch.empty(like.numel(), dtype=like.dtype)
        self.read_into(out, kind, name)
        return out.view(like.shape)
