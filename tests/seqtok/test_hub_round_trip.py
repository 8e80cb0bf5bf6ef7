"""What `push_to_hub` gives is what `from_pretrained` takes, by the hub's own client and over the wire."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ar_model.toy import toy_generator
from tests.seq_tokenizer.toy import toy_tokenizer
from tests.seqtok.fake_hub import TOKEN, FakeHub, commit_name, fake_hub

pytestmark = pytest.mark.slow

PUSH = """
import sys
from ar_model import SeqGenerator
from seq_tokenizer import SeqTokenizer
folder, token, revision = sys.argv[1:4]
SeqTokenizer.from_pretrained(f"{folder}/tokenizer").push_to_hub("owner/tokens", private=True, token=token)
model = SeqGenerator.from_pretrained(f"{folder}/generator")
print(model.push_to_hub("owner/drawing", token=token, revision=revision or None))
"""
FETCH = """
import sys
from ar_model import SeqGenerator
from seq_tokenizer import SeqTokenizer
folder, token, revision = sys.argv[1:4]
options = {"token": token or None, "cache_dir": f"{folder}/cache"}
SeqGenerator.from_pretrained("owner/drawing", revision=revision or None, **options).save_pretrained(f"{folder}/drawing")
SeqTokenizer.from_pretrained("owner/tokens", **options).save_pretrained(f"{folder}/tokens")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    toy_tokenizer().save_pretrained(folder / "tokenizer")
    toy_generator().save_pretrained(folder / "generator")
    return folder


def of_a_user(code: str, hub: FakeHub, *words: object) -> subprocess.CompletedProcess[str]:
    ways = {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, env={**os.environ, **ways}, capture_output=True, text=True, timeout=120)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("revision", ["", "v2"])
def test_what_was_pushed_comes_back_with_its_bytes(revision: str, models: Path, tmp_path: Path):
    with fake_hub() as hub:
        pushed = of_a_user(PUSH, hub, models, TOKEN, revision)
        assert pushed.returncode == 0, pushed.stderr
        branch = hub.branches["owner/drawing"][revision or "main"]
        assert branch[1:] == [content(models / "generator")], "one commit, and nothing else in it"
        assert pushed.stdout.strip() == f"{hub.address}/owner/drawing/commit/{commit_name(branch[-1])}"
        assert hub.private == {"owner/tokens": True, "owner/drawing": False}
        for _ in range(2):  # again: the repository is there, and so is the local copy
            fetched = of_a_user(FETCH, hub, tmp_path, TOKEN, revision)
            assert fetched.returncode == 0, fetched.stderr
            assert content(tmp_path / "drawing") == content(models / "generator")
            assert content(tmp_path / "tokens") == content(models / "tokenizer")
            assert of_a_user(PUSH, hub, models, TOKEN, revision).returncode == 0


def test_what_the_hub_refuses_is_one_message(models: Path, tmp_path: Path):
    with fake_hub() as hub:
        stranger = of_a_user(PUSH, hub, models, "hf_of_somebody", "")
        last = stranger.stderr.splitlines()[-1]
        assert "SeqtokError: owner/tokens: the hub did not take it (" in last, stranger.stderr
        assert "401" in last
        assert hub.branches == {}
        assert of_a_user(PUSH, hub, models, TOKEN, "").returncode == 0
        for token, revision, name in [("", "", "tokens"), (TOKEN, "v3", "drawing")]:
            refused = of_a_user(FETCH, hub, tmp_path, token, revision)
            last = refused.stderr.splitlines()[-1]
            assert f"DataError: owner/{name}: no such folder, and the hub did not give it (" in last, refused.stderr
