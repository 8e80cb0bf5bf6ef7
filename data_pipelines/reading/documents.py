"""Documents: texts and pictures in turns, as a file of lines that name pictures of a split of latents.

A line is a JSON object: {"key": "page-17", "parts": ["some text", {"image": "KEY"}, "more text", {"image": "KEY"}]},
where KEY is a sample's key in the shards. So one picture may stand in many documents, and is stored once.

Shapes: B documents, M rows (see DocumentBatch), T text tokens, K latents of D channels.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.latent_text import LatentReader
from data_pipelines.reading.loader import FetchConfig, ReadConfig, fetched
from data_pipelines.reading.order import EpochOrder, StepPlan
from data_pipelines.samples import DocumentBatch
from data_pipelines.shards.shard_set import ShardSet
from data_pipelines.sources.base import MAX_BAD_SHARE, Bad
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.files import sha256_file
from seqtok_core.foundation.packed import Packed, pack

log = logging.getLogger(__name__)
_NAMED = 3  # bad documents in a message
_LIKE_A_PIECE = re.compile(r"#\d+$")  # such a key gets a number, too: so no two pieces share one


class DocumentReadConfig(FetchConfig):
    """How documents are read."""

    pictures: Annotated[int, Field(ge=1)] = 4  # of one sequence, at most; longer documents are cut into several
    max_tokens: Annotated[int, Field(ge=1)] = 32  # T, of one text; longer ones are cut, counted and warned of
    shuffle: bool = True


@dataclass(frozen=True)
class DocumentPiece:
    """As much of a document as a sequence holds: a text before each picture, and one after the last where the document
    ends there."""

    key: str
    texts: tuple[str, ...]
    images: tuple[int, ...]  # of the split


class DocumentFile:
    """The documents of a file, resolved and cut. It is read twice, and of it their texts are kept, packed: no object
    per document."""

    def __init__(self, file: Path, shards: ShardSet, pictures: int) -> None:
        """Documents that cannot be used are named, counted and left out, up to a limit. Raises DataError."""
        self.file, self.bad, self._sound = Path(file), list[Bad](), 0
        found = (each for each in self._documents() if not isinstance(each, Bad))
        wanted = {part["image"] for _, parts in found for part in parts if not isinstance(part, str)}
        places = {key: place for place, key in enumerate(shards.names(0, len(shards))) if key in wanted}
        self._pieces: Packed = pack(self._resolved(places, pictures))
        self._refuse()

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> DocumentPiece:
        key, texts, images = json.loads(self._pieces[index])
        return DocumentPiece(key, tuple(texts), tuple(images))

    def _documents(self) -> Iterator[tuple[str, list[Any]] | Bad]:
        """(key, parts) of each line that is a document."""
        keys = set[str]()
        try:
            with open(self.file, encoding="utf-8-sig") as stream:
                for number, line in enumerate(stream, 1):
                    if not line.strip():
                        continue
                    place, found = f"{self.file}:{number}", _document(line)
                    if isinstance(found, str):
                        yield Bad(place, found)
                        continue
                    key = str(found.get("key", f"line-{number}"))
                    if key in keys:
                        yield Bad(place, "its key has come before", shown(key))
                        continue
                    keys.add(key)
                    yield key, found["parts"]
        except OSError as error:
            raise DataError(f"{self.file}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{self.file}: is no UTF-8 ({error.reason} at byte {error.start})") from None

    def _resolved(self, places: Mapping[str, int], pictures: int) -> Iterator[bytes]:
        for each in self._documents():
            if isinstance(each, Bad):
                self.bad.append(each)
                continue
            key, parts = each
            missing = [part["image"] for part in parts if not isinstance(part, str) and part["image"] not in places]
            if missing:
                self.bad.append(Bad(f"{self.file}: {key}", "no such picture in the split", shown(missing[0])))
                continue
            self._sound += 1
            for number, piece in enumerate(_cut(parts, places, pictures)):
                name = key if number == 0 and not _LIKE_A_PIECE.search(key) else f"{key}#{number}"
                yield json.dumps([name, *piece]).encode()

    def _refuse(self) -> None:
        """Say what is left out. Raises DataError where it is too much, or nothing is left."""
        named = "; ".join(map(str, self.bad[:_NAMED]))
        more = f" and {len(self.bad) - _NAMED} more" if len(self.bad) > _NAMED else ""
        if not self._pieces:
            raise DataError(f"{self.file}: holds no document that can be used" + (f": {named}{more}" if named else ""))
        if len(self.bad) > MAX_BAD_SHARE * (self._sound + len(self.bad)):
            raise DataError(
                f"{self.file}: {len(self.bad)} documents cannot be used, more than {MAX_BAD_SHARE:.0%}: {named}{more}"
            )
        if self.bad:
            log.warning("%s: %d documents left out: %s%s", self.file, len(self.bad), named, more)


class DocumentLoader:
    """A rank's endless stream of micro-batches of documents. Position = number of global steps."""

    def __init__(
        self,
        folder: Path,
        split: str,
        file: Path,
        captions: CaptionTokenizer,
        config: DocumentReadConfig,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`file` names pictures of the split of latents in `folder`. Raises DataError or ConfigError."""
        self._fetch = _Fetch(folder, split, file, captions, config)
        self._plan = StepPlan(global_batch, micro_batch or max(global_batch // world, 1), rank, world)
        self._config, self.global_batch = config, global_batch
        self._plan.check(len(self._fetch.documents), str(file))
        self._order = EpochOrder([len(self._fetch.documents)], seed, 1, config.shuffle)
        self.latent_spec = self._fetch.reader.latent_spec
        self.fingerprint = fingerprint.of_value([self._fetch.reader.shards.fingerprint, sha256_file(Path(file))])

    @property
    def samples(self) -> int:
        """Of one epoch; the incomplete last batch is left out."""
        return self._plan.steps(len(self._fetch.documents)) * self.global_batch

    def iterate(self, start_step: int = 0) -> Iterator[DocumentBatch]:
        """Micro-batches from global step `start_step` on; the same for every number of workers."""
        shards = self._fetch.reader.shards
        return fetched(self._fetch, self._plan, self._order, start_step, self._config, shards)


def read_documents(
    folder: Path,
    split: str,
    file: Path,
    captions: CaptionTokenizer,
    limit: int | None = None,
    config: DocumentReadConfig | None = None,
) -> DocumentBatch:
    """All documents of a file, or the first `limit`, as one batch of epoch 0. Raises DataError."""
    fetch = _Fetch(folder, split, file, captions, (config or DocumentReadConfig()).model_copy(update={"cache": False}))
    count = len(fetch.documents) if limit is None else min(limit, len(fetch.documents))
    return fetch(0, np.arange(count, dtype=np.int64))


class _Fetch:
    """(epoch, document indices) -> batch."""

    def __init__(
        self, folder: Path, split: str, file: Path, captions: CaptionTokenizer, config: DocumentReadConfig
    ) -> None:
        shared = {name: getattr(config, name) for name in FetchConfig.model_fields}
        self.reader = LatentReader(Path(folder), split, captions, ReadConfig(**shared))
        self.documents = DocumentFile(file, self.reader.shards, config.pictures)
        self._captions, self._config = captions, config

    def __call__(self, epoch: int, indices: NDArray[np.int64]) -> DocumentBatch:
        pieces, most = [self.documents[index] for index in indices.tolist()], self._config.pictures + 1
        counts = torch.tensor([len(piece.images) for piece in pieces])
        found = self.reader.latents(np.array([i for piece in pieces for i in piece.images], dtype=np.int64))
        latents = found.new_zeros(len(pieces), most, *found.shape[1:])
        latents[torch.arange(most) < counts[:, None]] = found
        texts = [[*piece.texts, *[""] * (most - len(piece.texts))] for piece in pieces]
        index = torch.from_numpy(indices)
        return DocumentBatch(
            keys=[piece.key for piece in pieces],
            index=index,
            epoch=torch.full_like(index, epoch),
            text_ids=self._captions.encode_batch(texts, most, self._config.max_tokens)[0],
            latents=latents,
            rows=torch.tensor([len(piece.texts) for piece in pieces]),
            pictures=counts,
        )


def _document(line: str) -> dict[str, Any] | str:
    """What a line holds, or why it is no document."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return "not a JSON object"
    if not isinstance(found, dict) or not isinstance(found.get("parts"), list):
        return 'not an object with a list of "parts"'
    if not found["parts"]:
        return "it is empty"
    for part in found["parts"]:
        if not isinstance(part, str) and not (isinstance(part, dict) and isinstance(part.get("image"), str)):
            return 'a part is a text or {"image": KEY}'
    return found


def _cut(parts: Sequence[Any], places: Mapping[str, int], pictures: int) -> Iterator[tuple[list[str], list[int]]]:
    """Texts, one before each picture, and pictures, in pieces of at most so many pictures; the last piece has one text
    more, that behind its last picture, which ends the document."""
    words, texts, images = list[str](), list[str](), list[int]()
    for part in parts:
        if isinstance(part, str):
            words.append(part)
            continue
        if len(images) == pictures:
            yield texts, images
            texts, images = [], []
        texts.append(" ".join(words))
        images.append(places[part["image"]])
        words = []
    yield [*texts, " ".join(words)], images
