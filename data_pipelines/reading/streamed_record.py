"""One sample of a stream: its picture still encoded, its record read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from data_pipelines.shards.shard_set import MISSING_LABEL
from data_pipelines.sources.records import Fields, labels_of, parse_record, record_captions
from data_pipelines.tars.names import IMAGE_EXTENSIONS
from seqtok_core.foundation.errors import DataError, shown

EXTENSIONS = (*IMAGE_EXTENSIONS, "json", "txt", "cls")  # nothing else is looked at, and nothing is ever unpickled


@dataclass(frozen=True)
class Streamed:
    """`image` is None where the sample has no picture."""

    place: str  # shard and key
    key: str
    index: int  # 63 bits of a hash of the shard's name and the key: what randomness is drawn from
    visit: int  # which reading of a shard it came from
    image: bytes | None
    captions: tuple[str, ...]
    labels: Mapping[str, int]
    fault: str = ""  # why the record cannot be used

    def require_image(self) -> bytes:
        """Raises DataError where the picture or the record cannot be used."""
        if self.image is None or self.fault:
            raise DataError(self.fault or "no picture")
        return self.image


def read_streamed(shard: str, key: str, members: Mapping[str, bytes], fields: Fields, visit: int) -> Streamed:
    """Never raises: what is wrong with a sample is said when its picture is asked for."""
    place = f"{shard}:{shown(key)}"
    named = f"{shard.rpartition('/')[2]}:{key}"  # the same wherever the shards are mounted
    index = int.from_bytes(hashlib.sha256(named.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1
    image = next((members[extension] for extension in IMAGE_EXTENSIONS if extension in members), None)
    labels = dict.fromkeys(fields.labels, MISSING_LABEL)
    try:
        record = parse_record(members, members.__getitem__, fields)
        captions = record_captions(record, fields)
        for name, value in labels_of(record, fields).items():
            if isinstance(value, str) and not value.strip().isdecimal():
                raise DataError(f"label {name!r} is a word; in a stream labels must be whole numbers")
            labels[name] = int(value)
    except DataError as error:
        return Streamed(place, key, index, visit, image, (), labels, str(error))
    return Streamed(place, key, index, visit, image, captions, labels)
