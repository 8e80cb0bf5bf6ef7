"""Where each parameter lies in the flat partitions that ZeRO hands to an optimizer.

ZeRO 1 and 2 lay a group's parameters end to end and cut the row into equal parts, one per process: a matrix
may straddle a cut. ZeRO 3 cuts every parameter by itself. A layout says it in one form for both, so that Muon
can bring whole matrices together and a weight average can be read out, whatever the stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """`numel` values of a parameter, from its value `start` on, at `offset` of the partition of `rank`."""

    rank: int
    offset: int
    start: int
    numel: int


@dataclass(frozen=True)
class Entry:
    """One parameter: its name, its shape, and its pieces in the order of its values."""

    name: str
    shape: torch.Size
    pieces: tuple[Piece, ...]


class Layout:
    """The parameters of one flat partition; every process holds the same description."""

    def __init__(self, entries: Sequence[Entry], rank: int, world: int) -> None:
        self.entries = list(entries)
        self.rank, self.world = rank, world
        self.owners = _owners(self.entries, world)
        self._scattered = any(len(e.pieces) > 1 or e.pieces[0].rank != o for e, o in self._owned())

    def _owned(self) -> list[tuple[Entry, int]]:
        return list(zip(self.entries, self.owners, strict=True))

    def _local(self, flat: Tensor, owner: int) -> list[Tensor]:
        """This process's pieces of the parameters that `owner` brings together, as views."""
        return [
            flat.narrow(0, piece.offset, piece.numel)
            for entry, entry_owner in self._owned()
            for piece in entry.pieces
            if entry_owner == owner and piece.rank == self.rank
        ]

    def _sizes(self, source: int, owner: int) -> int:
        return sum(p.numel for e, o in self._owned() for p in e.pieces if o == owner and p.rank == source)

    def collect(self, flat: Tensor) -> list[Tensor]:
        """flat (partition,) -> the whole parameters this process owns, in shape. Collective."""
        if not self._scattered:
            return [self._whole(flat, entry) for entry, owner in self._owned() if owner == self.rank]
        sent = [self._sizes(self.rank, owner) for owner in range(self.world)]
        received = [self._sizes(source, self.rank) for source in range(self.world)]
        outgoing = torch.cat([flat.new_empty(0)] + [t for o in range(self.world) for t in self._local(flat, o)])
        incoming = flat.new_empty(sum(received))
        dist.all_to_all_single(incoming, outgoing, received, sent)
        parts = [list(self._cut(incoming, source, received)) for source in range(self.world)]
        whole = []
        for entry, owner in self._owned():
            if owner == self.rank:
                pieces = [parts[piece.rank].pop(0) for piece in entry.pieces]
                whole.append(torch.cat(pieces).view(entry.shape))
        return whole

    def _cut(self, incoming: Tensor, source: int, received: list[int]) -> list[Tensor]:
        """What came from `source`, as one tensor per piece."""
        numels = [p.numel for e, o in self._owned() for p in e.pieces if o == self.rank and p.rank == source]
        return list(incoming.narrow(0, sum(received[:source]), received[source]).split(numels)) if numels else []

    def _whole(self, flat: Tensor, entry: Entry) -> Tensor:
        piece = entry.pieces[0]
        return flat.narrow(0, piece.offset, piece.numel).view(entry.shape)

    def scatter(self, whole: list[Tensor], flat: Tensor) -> None:
        """The reverse of collect: write the owned parameters' values into everybody's `flat`. Collective."""
        mine = [entry for entry, owner in self._owned() if owner == self.rank]
        if not self._scattered:
            for entry, value in zip(mine, whole, strict=True):
                self._whole(flat, entry).copy_(value)
            return
        rows = [value.reshape(-1) for value in whole]
        outgoing = torch.cat(
            [flat.new_empty(0)]
            + [
                row.narrow(0, piece.start, piece.numel)
                for target in range(self.world)
                for entry, row in zip(mine, rows, strict=True)
                for piece in entry.pieces
                if piece.rank == target
            ]
        )
        sent = [self._sizes(target, self.rank) for target in range(self.world)]
        received = [self._sizes(self.rank, owner) for owner in range(self.world)]
        incoming = flat.new_empty(sum(received))
        dist.all_to_all_single(incoming, outgoing, received, sent)
        places = [view for owner in range(self.world) for view in self._local(flat, owner)]
        for place, value in zip(places, incoming.split([p.numel() for p in places]), strict=True):
            place.copy_(value)

    def assemble(self, flat: Tensor) -> dict[str, Tensor]:
        """Every parameter by name, whole, on the CPU of rank 0; empty elsewhere. Collective."""
        parts: list[Tensor] | None = [flat]
        if self.world > 1:
            parts = [torch.empty_like(flat) for _ in range(self.world)] if self.rank == 0 else None
            dist.gather(flat.contiguous(), parts, dst=0)
        if parts is None:
            return {}
        whole = {}
        for entry in self.entries:
            pieces = [parts[p.rank].narrow(0, p.offset, p.numel) for p in entry.pieces]
            whole[entry.name] = torch.cat(pieces).view(entry.shape).cpu()
        return whole


def _owners(entries: Sequence[Entry], world: int) -> list[int]:
    """Who brings each parameter together: the holder of most of it; between equals, who has least to do."""
    load, owners = [0] * world, []
    for entry in entries:
        share = [0] * world
        for piece in entry.pieces:
            share[piece.rank] += piece.numel
        owner = max(range(world), key=lambda rank: (share[rank], -load[rank], -rank))
        load[owner] += sum(share)
        owners.append(owner)
    return owners


def rows_cut_evenly(
    names: Sequence[str], shapes: Sequence[torch.Size], partition: int, rank: int, world: int
) -> Layout:
    """ZeRO 1, 2: parameters end to end, process r holds values [r * partition, (r + 1) * partition)."""
    entries, begin = [], 0
    for name, shape in zip(names, shapes, strict=True):
        end, pieces = begin + shape.numel(), []
        for holder in range(begin // partition, (end - 1) // partition + 1):
            low, high = max(begin, holder * partition), min(end, (holder + 1) * partition)
            pieces.append(Piece(holder, low - holder * partition, low - begin, high - low))
        entries.append(Entry(name, shape, tuple(pieces)))
        begin = end
    return Layout(entries, rank, world)


def each_cut(names: Sequence[str], shapes: Sequence[torch.Size], rank: int, world: int) -> Layout:
    """ZeRO 3: every parameter cut into `world` parts of ceil(numel / world), the last ones short or empty."""
    entries, offset = [], 0
    for name, shape in zip(names, shapes, strict=True):
        part, pieces = -(-shape.numel() // world), []
        for holder in range(world):
            start = min(holder * part, shape.numel())
            stop = min(start + part, shape.numel())
            if stop > start:
                pieces.append(Piece(holder, offset, start, stop - start))
        entries.append(Entry(name, shape, tuple(pieces)))
        offset += part
    return Layout(entries, rank, world)
