"""Which models are of this machine and which of the hub; what is used when the hub is out of reach; what goes there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from seqtok_core.foundation import model_folder
from seqtok_core.foundation.errors import ConfigError, DataError, SeqtokError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, name: str = "owner/name") -> Path:
    """A model in the hub's cache, as its library leaves it."""
    repo = cache / f"models--{name.replace('/', '--')}"
    folder = repo / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"kind": "x"}))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return folder


@pytest.fixture
def forbidding_proxy():
    """The address of a proxy that answers everything with 403."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def ask_behind(proxy: str, cache: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys, warnings\n"
    code += "warnings.formatwarning = lambda message, *rest, **more: f'warning: {message}\\n'\n"
    code += "from seqtok_core.foundation.model_folder import find_model_folder\n"
    code += "from seqtok_core.foundation.errors import DataError\n"
    code += "try:\n    print(find_model_folder('owner/name', cache_dir=sys.argv[1]))\n"
    code += "except DataError as error:\n    sys.exit(str(error))\n"
    ways = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), proxy)
    environment = {**os.environ, **ways, "HF_HUB_OFFLINE": "0", "NO_PROXY": "", "no_proxy": ""}
    words = [sys.executable, "-c", code, str(cache)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)


def test_behind_a_proxy_that_refuses_the_copy_is_used_with_one_warning(forbidding_proxy: str, tmp_path: Path):
    folder = cached(tmp_path)
    done = ask_behind(forbidding_proxy, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder)
    assert done.stderr.count("\n") == 1
    assert "warning: owner/name: the hub cannot be asked (" in done.stderr
    assert "403" in done.stderr


def test_behind_a_proxy_that_refuses_and_without_a_copy_it_is_one_line(forbidding_proxy: str, tmp_path: Path):
    done = ask_behind(forbidding_proxy, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "the hub did not give it" in done.stderr
    assert "403" in done.stderr


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the hub was asked for; it has nothing."""
    import huggingface_hub

    calls: list[dict[str, Any]] = []

    def fetch(repo_id: str, **options: Any) -> str:
        calls.append({"repo_id": repo_id, **options})
        raise ConnectionError("nobody there\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    return calls


@pytest.mark.parametrize(
    "name", ["/no/such", "./runs/model", "../model", "runs/a/model", "~/model", "model", "a\\b", ""]
)
def test_what_looks_like_a_path_never_goes_to_the_hub(name: str, asked: list[Any]):
    with pytest.raises(DataError, match=r"no such model folder|not a model folder"):
        model_folder.find_model_folder(name)
    with pytest.raises(DataError):
        model_folder.find_model_folder(Path(name))
    assert asked == []


def test_a_path_beside_what_is_here_never_goes_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "file").write_text("x")
    for name in ("runs/gone", "runs/file", Path("elsewhere/gone")):
        with pytest.raises(DataError, match=r"no such model folder|a file"):
            model_folder.find_model_folder(name)
    assert asked == []


def test_the_hub_is_asked_as_the_user_says_and_its_silence_is_one_line(asked: list[Any]):
    with pytest.raises(DataError, match=r"owner/name: no such folder, and the hub did not give it \(nobody there\)$"):
        model_folder.find_model_folder("owner/name", revision="v2", token="secret", cache_dir="/elsewhere")
    own = {"repo_id": "owner/name", "revision": "v2", "token": "secret", "cache_dir": "/elsewhere"}
    assert [{key: call[key] for key in own} for call in asked] == [own, own]
    assert asked[1]["local_files_only"]


def test_a_folder_here_has_no_revisions(tmp_path: Path):
    with pytest.raises(ConfigError, match="revision=v2"):
        model_folder.find_model_folder(tmp_path, revision="v2")
    (tmp_path / "config.json").write_text("{}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model_folder.find_model_folder(str(tmp_path), token="unused") == tmp_path


class Hub:
    """Stands for the hub's own client: it keeps what it is given."""

    given: dict[str, Any]

    def __init__(self, token: str | None = None) -> None:
        Hub.given = {"token": token}

    def create_repo(self, name: str, private: bool | None, exist_ok: bool) -> None:
        Hub.given |= {"name": name, "private": private}
        assert exist_ok

    def create_branch(self, name: str, branch: str, exist_ok: bool) -> None:
        Hub.given |= {"branch": (name, branch)}
        assert exist_ok

    def upload_folder(self, *, repo_id: str, folder_path: str, revision: str | None, commit_message: str) -> Any:
        if repo_id == "owner/full":
            raise OSError("no room\nsecond line")
        Hub.given |= {"files": {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}, "revision": revision}
        return type("Commit", (), {"commit_url": f"https://hub/{repo_id}"})


def test_what_is_pushed_is_the_model_folder_in_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    save = lambda folder: (folder / "config.json").write_text("{}")  # noqa: E731
    url = model_folder.push_model(save, "owner/name", token="secret", private=True, revision="v2")
    assert url == "https://hub/owner/name"
    assert Hub.given == {
        "token": "secret", "name": "owner/name", "private": True, "files": {"config.json": b"{}"}, "revision": "v2",
        "branch": ("owner/name", "v2"),
    }  # fmt: skip
    with pytest.raises(SeqtokError, match=r"owner/full: the hub did not take it \(no room\)$"):
        model_folder.push_model(save, "owner/full")
    with pytest.raises(ConfigError, match="not a hub id"):
        model_folder.push_model(save, "./folder")
