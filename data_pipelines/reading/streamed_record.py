"""One sample of a stream: its picture still encoded, its record read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_pipelines.shards.shard_set import MISSING_LABEL
from data_pipelines.sources.records import (
    Fields,
    labels_of,
    parse_record,
    picture_member,
    record_captions,
    text_members,
)
from data_pipelines.sources.tar_source import TarRule, keys_lost_to_dots, lost_to_dots, no_picture
from data_pipelines.tars.index import TarSample
from data_pipelines.tars.names import IMAGE_EXTENSIONS
from seqtok_core.foundation.errors import DataError, shown


@dataclass(frozen=True)
class Streamed:
    """`image` is None where the sample has no picture; `fault` says why it or its record cannot be used."""

    place: str  # shard and key
    key: str
    index: int  # 63 bits of a hash of the shard's name and the key: what randomness is drawn from
    visit: int  # which reading of a shard it came from
    image: bytes | None
    captions: tuple[str, ...]
    labels: Mapping[str, int]
    fault: str = ""

    def require_image(self) -> bytes:
        """Raises DataError where the picture or the record cannot be used."""
        if self.image is None or self.fault:
            raise DataError(self.fault)
        return self.image


def members_read(fields: Fields) -> frozenset[str]:
    """Endings that are looked at in a stream: nothing else, and nothing is ever unpickled."""
    named = (f"{fields.image_member}.{ending}" for ending in IMAGE_EXTENSIONS)
    pictures = (fields.image_member, *named) if fields.image_member else IMAGE_EXTENSIONS
    return frozenset((*pictures, *text_members(fields)))


def read_streamed(
    shard: str, key: str, members: Mapping[str, bytes | None], fields: Fields, visit: int
) -> Iterator[Streamed]:
    """One sample; and of a key whose names go on behind its first dot, each picture that webdataset's rule loses.

    Members that are not looked at have no content. Never raises: what is wrong with a sample is said when its picture
    is asked for.
    """
    whole = TarSample(key, dict.fromkeys(members, (0, 0)))
    rule = TarRule(fields, whole_names=False)
    lost = dict(zip(keys_lost_to_dots(whole, rule), lost_to_dots(shard, whole, rule), strict=True))
    found = {name: content for name, content in members.items() if content is not None}
    member = picture_member(found, fields)
    if member is None and not lost:
        lost = {key: no_picture(shard, whole)}
    for own_key, bad in lost.items():
        yield _streamed(shard, own_key, fields, visit, fault=f"{bad.reason} ({bad.detail})")
    if member is not None:
        yield _streamed(shard, key, fields, visit, found, found[member])


def _streamed(
    shard: str,
    key: str,
    fields: Fields,
    visit: int,
    members: Mapping[str, bytes] | None = None,
    image: bytes | None = None,
    fault: str = "",
) -> Streamed:
    place = f"{shard}:{shown(key)}"
    named = f"{shard.rpartition('/')[2]}:{key}"  # the same wherever the shards are mounted
    index = int.from_bytes(hashlib.sha256(named.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1
    captions: tuple[str, ...] = ()
    labels = dict.fromkeys(fields.labels, MISSING_LABEL)
    try:
        if members is not None:
            record = parse_record(members, members.__getitem__, fields)
            captions, labels = record_captions(record, fields), labels | _numbers(record, fields)
    except DataError as error:
        fault = str(error)
    return Streamed(place, key, index, visit, image, captions, labels, fault)


def _numbers(record: Mapping[str, Any], fields: Fields) -> dict[str, int]:
    labels = labels_of(record, fields)
    for name, value in labels.items():
        if isinstance(value, str) and not value.strip().isdecimal():
            raise DataError(f"label {shown(name)!r} is a word; in a stream labels must be whole numbers")
    return {name: int(value) for name, value in labels.items()}
