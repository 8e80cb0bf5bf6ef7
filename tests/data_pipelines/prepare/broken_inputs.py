"""Folders and tars of broken inputs, each sample with what docs/images.md says of it."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.data_pipelines.prepare.broken_pictures import Broken, Evil, broken_pictures, flat
from tests.data_pipelines.toy import file_bytes

LINE = "a plain caption"
WRITTEN = "written"


@dataclass(frozen=True)
class Expected:
    """What becomes of one record: "written" or a reason, and what was noted about it."""

    name: str
    outcome: str
    picture: Broken | None = None
    note: str = ""
    captions: list[str] | None = None


def broken_folder(folder: Path, outside: Path) -> list[Expected]:
    """A folder with captions.jsonl. `outside` is beside it and holds a picture that must not be read."""
    folder.mkdir()
    outside.mkdir()
    (outside / "secret.png").write_bytes(file_bytes(flat()))
    pictures = broken_pictures(outside / "marker")
    expected, lines = [], []
    for case in pictures:
        (folder / case.name).write_bytes(case.data)
        expected.append(Expected(case.name, case.outcome, case, case.note))
        lines.append(record_line(case.name, [LINE]))
    for name, outcome in _paths(folder, outside).items():
        expected.append(Expected(name.encode("utf-8", "backslashreplace").decode(), outcome))
        lines.append(record_line(name, [LINE]))
    for number, (captions, outcome, note, clean) in enumerate(_captions()):
        name = f"caption {number}.png"
        (folder / name).write_bytes(file_bytes(flat()))
        expected.append(Expected(name, outcome, None, note, clean))
        lines.append(record_line(name, captions))
    for line, outcome in _lines():
        expected.append(Expected("", outcome))
        lines.append(line)
    (folder / "captions.jsonl").write_bytes(b"\xef\xbb\xbf" + b"".join(line + b"\n" for line in lines))
    return expected


def record_line(name: object, captions: object) -> bytes:
    return json.dumps({"file_name": name, "captions": captions}).encode()


def _paths(folder: Path, outside: Path) -> dict[str, str]:
    os.symlink(outside / "secret.png", folder / "link out.png")
    os.symlink("windows.bmp", folder / "link in.bmp")
    os.symlink("nowhere.png", folder / "dangling.png")
    os.symlink("circle.png", folder / "circle.png")
    os.symlink(outside, folder / "linked folder")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "plain.png").write_bytes(file_bytes(flat()))
    leaves = "path leaves the folder"
    return {
        "../outside/secret.png": leaves,
        str(outside / "secret.png"): leaves,
        "link out.png": leaves,
        "linked folder/secret.png": leaves,
        "/dev/zero": leaves,
        "link in.bmp": WRITTEN,
        "dangling.png": "file cannot be read",
        "circle.png": "file cannot be read",
        "missing.png": "file cannot be read",
        "pipe.png": "not a file",
        "folder.png": "not a file",
        "null\0byte.png": "not a file name",
        "surrogate \ud800.png": "not a file name",
        "https://example.com/a.png": "web address, not a file",
        "pipe:touch marker": "web address, not a file",
        "web.webp": "duplicate name",
        "plain.png": "duplicate name",  # of plain.ppm: a name ends before its ending
    }


def _captions() -> list[tuple[object, str, str, list[str] | None]]:
    """(captions, outcome, note, captions as written)."""
    cleaned, not_text = "captions cleaned", "field 'captions' is not a caption or a list of captions"
    return [
        ([], "no caption", "", None),
        ("", "no caption", "empty captions left out", None),
        ([" ", "\t\n"], "no caption", "empty captions left out", None),
        (None, "no caption", "", None),
        (["", "one"], WRITTEN, "empty captions left out", ["one"]),
        ("one text", WRITTEN, "", ["one text"]),
        (["x" * 100_000], WRITTEN, "captions shortened", ["x" * 1000]),
        (["a\0b\x1b[31mc\x7fd"], WRITTEN, cleaned, ["a b [31mc d"]),
        (["left\ud800right"], WRITTEN, cleaned, ["leftright"]),
        (["e\u0301te\u0301"], WRITTEN, cleaned, ["été"]),
        (["two\r\nlines\u2028here"], WRITTEN, cleaned, ["two lines here"]),
        (["<script>alert(1)</script>"], WRITTEN, "", ["<script>alert(1)</script>"]),
        (["same", "same", "other"], WRITTEN, "equal captions merged", ["same", "other"]),
        (["emoji 🎈 and 図"], WRITTEN, "", ["emoji 🎈 and 図"]),
        (7, not_text, "", None),
        (["one", 2], not_text, "", None),
        ({"a": "b"}, not_text, "", None),
    ]


def _lines() -> list[tuple[bytes, str]]:
    return [
        (b"not json", "not JSON"),
        (b'{"file_name": "red.bmp", "captions": ["cut', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "not a record"),
        (b"null", "not a record"),
        ('{"file_name": "caf\xe9.png", "captions": ["x"]}'.encode("latin-1"), "not UTF-8"),
        (b"\xff\xfe" + '{"file_name": "red.bmp"}'.encode("utf-16-le").replace(b"\n", b""), "not UTF-8"),
        (b'{"captions": ["no picture is named"]}', "no picture"),
        (b'{"file_name": 7, "captions": ["x"]}', "no picture"),
        (b'{"file_name": "", "captions": ["x"]}', "no picture"),
    ]


def broken_tar(path: Path, marker: Path) -> dict[str, str]:
    """A whole tar of odd members. Returns outcomes by key; "ignored" where members belong to no sample."""
    path.parent.mkdir(parents=True)
    good, text = file_bytes(flat()), json.dumps({"captions": [LINE]}).encode()
    evil = pickle.dumps(Evil(str(marker)))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("../../escape", "/abs/olute", "dir/a b", "dir.with.dots/x", "k" * 150, "ünï/cödé"):
            _add(tar, f"{name}.png", good)
            _add(tar, f"{name}.json", text)
        for name, content in {"pickle.pkl": evil, "pickle.pyd": evil, "torch.pth": evil}.items():
            _add(tar, name, content)
        _add(tar, "with pickle.json", text)
        _add(tar, "with pickle.pickle", evil)
        _add(tar, "with pickle.png", good)
        _link(tar, "symlink.png", tarfile.SYMTYPE, "/etc/passwd")
        _add(tar, "symlink.json", text)
        _link(tar, "hardlink.png", tarfile.LNKTYPE, "dir/a b.png")
        _add(tar, "hardlink.json", text)
        _link(tar, "device.png", tarfile.CHRTYPE)
        _link(tar, "pipe.png", tarfile.FIFOTYPE)
        _link(tar, "folder.png", tarfile.DIRTYPE)
        _sparse(tar, "sparse.png", good)
        _add(tar, "sparse.json", text)
        _add(tar, "no extension", b"readme")
        _add(tar, "no picture.json", text)
        _add(tar, "no record.png", good)
        _add(tar, "upper.PNG", good)
        _add(tar, "upper.JSON", text)
        _add(tar, "latin.png", good)
        _add(tar, "latin.json", '{"captions": ["\xe9"]}'.encode("latin-1"))
        _add(tar, "sixteen.png", good)
        _add(tar, "sixteen.txt", "caption".encode("utf-16"))
        _add(tar, "list.png", good)
        _add(tar, "list.json", b"[1]")
        _add(tar, "cut.png", good[: len(good) // 2])
        _add(tar, "cut.json", text)
    written = [
        "../../escape",
        "/abs/olute",
        "dir/a b",
        "dir.with.dots/x",
        "k" * 150,
        "ünï/cödé",
        "with pickle",
        "upper",
    ]
    nothing = ["pickle", "torch", "symlink", "hardlink", "device", "pipe", "sparse", "no picture"]
    return {
        **dict.fromkeys(written, WRITTEN),
        **dict.fromkeys(nothing, "no picture"),
        "no record": "no caption",
        "latin": "KEY.json is not JSON",
        "sixteen": "KEY.txt is not UTF-8",
        "list": "KEY.json is not an object",
        "cut": "damaged image",
    }


def broken_shards(folder: Path) -> dict[str, str]:
    """One good tar and many that are damaged as a whole: file -> what the message says of it."""
    folder.mkdir(parents=True)
    good, text = file_bytes(flat()), json.dumps({"captions": [LINE]}).encode()
    members = [(f"k{n}.{kind}", data) for n in range(4) for kind, data in (("json", text), ("png", good))]
    whole = tar_bytes(members)
    (folder / "train-good.tar").write_bytes(whole)
    header = whole[: 4 * 512] + b"\xaa" * 512 + whole[5 * 512 :]
    used_again = [("a.png", good), ("b.png", good), ("a.json", text)]
    (folder / "train-no members.tar").write_bytes(tar_bytes([]))  # whole, and of nothing
    damaged = {
        "cut in a member": (whole[: 3 * 512 + 100], "cut"),
        "cut in a header": (whole[: 4 * 512 + 100], "cut"),
        "cut at a sample": (whole[: 8 * 512], "early"),
        "cut at a member": (whole[: 4 * 512], "early"),
        "cut before the end": (whole[: 16 * 512 + 512], "early"),
        "overwritten header": (header, "header"),
        "empty": (b"", ""),
        "garbage": (b"\x55" * 4096, ""),
        "page": (b"<html>404</html>", ""),
        "key used again": (tar_bytes(used_again), "'a' comes twice"),
        "member twice": (tar_bytes([("a.png", good), ("a.png", good)]), "a.png comes twice"),
    }
    for name, (data, _) in damaged.items():
        (folder / f"train-{name}.tar").write_bytes(data)
    return {f"train-{name}.tar": message for name, (_, message) in damaged.items()}


def tar_bytes(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            _add(tar, name, data)
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _link(tar: tarfile.TarFile, name: str, kind: bytes, target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    tar.addfile(info)


def _sparse(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A sparse file of GNU tar: a hole of 4096 bytes, then the data."""
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.GNUTYPE_SPARSE, len(data)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (4096, len(data))
    header[483:495] = b"%011o\0" % (4096 + len(data))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = bytes(header) + data + bytes(-len(data) % 512)
    assert tar.fileobj is not None
    tar.fileobj.write(content)
    tar.offset += len(content)
