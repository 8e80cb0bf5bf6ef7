"""Keys: safe, unique over a whole data set, independent of the order, and those of the plain definition."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_pipelines.prepare import keys
from data_pipelines.prepare.keys import key_of, mark_names, safe_key
from data_pipelines.tars.names import SAFE_KEY


@dataclass
class Names:
    all: list[str]

    def __len__(self):
        return len(self.all)

    def names(self, start, stop):
        return iter(self.all[start:stop])


def keys_of(**splits: list[str]) -> dict[str, list[str | None]]:
    marks = mark_names({split: Names(names) for split, names in splits.items()})
    found = {}
    for split, names in splits.items():
        own = marks[split]
        own = np.zeros(len(names), np.uint8) if own is None else own
        found[split] = [key_of(name, mark, split) for name, mark in zip(names, own, strict=True)]
    return found


def hashed(key: str, name: str) -> str:
    return f"{key[:115]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def plainly(names: list[str]) -> list[str | None]:
    """The definition for one split, with every name in memory."""
    wanted = [safe_key(name) for name in names]
    distinct = Counter(key for _, key in set(zip(names, wanted, strict=True)))
    given: set[str] = set()
    result: list[str | None] = []
    for name, key in zip(names, wanted, strict=True):
        key = hashed(key, name) if distinct[key] > 1 else key
        result.append(None if key in given else key)
        given.add(key)
    return result


few = st.text("ab._/é", max_size=3)  # so that names and their safe forms meet


@given(st.lists(st.one_of(few, st.text(max_size=200)), max_size=40))
@example(["a.b", "a/b", "a.b", "c", "c", hashed("a_b", "a/b"), hashed("a_b", "a.b")])
@example([hashed("a_b", "a/b"), "a.b", "a/b"])
def test_keys_are_those_of_the_plain_definition(names):
    assert keys_of(train=names)["train"] == plainly(names)


@given(st.lists(st.text(max_size=200), max_size=30))
def test_keys_are_safe_unique_and_independent_of_the_order(names):
    found = keys_of(train=names)["train"]
    given_keys = [key for key in found if key is not None]
    assert all(SAFE_KEY.fullmatch(key) for key in given_keys)
    assert len(given_keys) == len(set(given_keys)) == len(set(names))
    forward = {name: key for name, key in zip(names, found, strict=True) if key}
    backward = {n: k for n, k in zip(names[::-1], keys_of(train=names[::-1])["train"], strict=True) if k}
    assert forward == backward


@given(st.lists(few, max_size=20), st.lists(few, max_size=20))
def test_keys_are_unique_over_splits(train, val):
    """What no other split has keeps its key; what two splits have gets a hash of split and name in both."""
    found = keys_of(train=train, val=val)
    kept = [key for split in found.values() for key in split if key]
    assert len(kept) == len(set(kept)) == len(set(train)) + len(set(val))
    for split, names, others in (("train", train, val), ("val", val, train)):
        used = {safe_key(name) for name in others}
        alone = plainly(names)
        for name, key, own in zip(names, found[split], alone, strict=True):
            if key is None or safe_key(name) not in used:
                assert key == own
            else:
                assert key == hashed(safe_key(name), f"{split}/{name}")


def test_names_are_read_in_pieces(monkeypatch):
    names = [f"{n % 11}.{n % 5}" if n % 3 else f"{n % 7}/{n % 5}" for n in range(100)]
    whole = keys_of(train=names, val=names[40:])
    read: list[int] = []
    monkeypatch.setattr(keys, "_CHUNK", 7)
    assert keys_of(train=names, val=names[40:]) == whole
    mark_names({"a": Names(names), "b": Names(names)}, read.append)
    assert read[-1] == 200
    assert read == sorted(read)


def test_plain_keys_need_no_marks():
    assert mark_names({"train": Names(["a", "b"]), "val": Names(["c"])}) == {"train": None, "val": None}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/abs/olute", "a.b", "", "x" * 500, "ü", "a\0b", "\ud800"])
def test_hostile_names_become_plain_keys(name):
    assert SAFE_KEY.fullmatch(safe_key(name))
