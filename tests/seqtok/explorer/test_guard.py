"""Who may ask, how much, and what the page may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from seqtok.explorer.guard import may_be_asked
from tests.seqtok.explorer.toy import REPORT, client_of, make_run, picture_bytes, refused


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def client(run: Path) -> TestClient:
    return client_of(run)


@pytest.mark.parametrize(
    ("host", "listens", "may"),
    [
        ("127.0.0.1:7860", "127.0.0.1", True),
        ("localhost:7860", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("[::1]:7860", "::1", True),
        ("127.0.0.2:7860", "127.0.0.2", True),
        ("evil.example:7860", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("192.168.1.5:7860", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("192.168.1.5:7860", "0.0.0.0", True),
        ("[fe80::1]:7860", "::", True),
        ("box.example:7860", "box.example", True),
        ("evil.example:7860", "0.0.0.0", False),
    ],
)
def test_only_ones_own_names_are_answered_for(host: str, listens: str, may: bool):
    assert may_be_asked(host, listens) is may


def test_another_name_or_site_is_refused(client: TestClient):
    assert "evil.example" in refused(client.get("/api/about", headers={"Host": "evil.example"}), 421)
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ):
        assert "another site" in refused(client.post("/api/draw", json={}, headers=headers), 403)
    own = {"Origin": "http://127.0.0.1:7860", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/picture", content=picture_bytes(), headers=own).status_code == 200


def test_more_bytes_than_allowed_are_refused_whether_their_number_is_told_or_not(run: Path):
    small = client_of(run, most_bytes=2**20)

    def parts() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(2**17)

    assert "1 MiB" in refused(small.post("/api/picture", content=bytes(2**20 + 1)), 413)
    assert "1 MiB" in refused(small.post("/api/picture", content=parts()), 413)
    assert "1 MiB" in refused(small.post("/api/draw", json={"prompt": "a" * 2**21}), 413)
    assert small.post("/api/picture", content=picture_bytes()).status_code == 200


def test_every_answer_says_what_a_page_may_do(client: TestClient):
    for path in ("/", "/page/app.js", "/api/about", "/no/such/page", "/report"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "http" not in policy
        assert "'unsafe-eval'" not in policy
        assert "frame-ancestors" in policy
        assert "script-src 'self'" in policy or "script-src" not in policy


def test_the_report_has_no_scripts_and_only_the_explorer_frames_it(client: TestClient):
    answer = client.get("/report")
    assert answer.text == REPORT
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'self'" in answer.headers["Content-Security-Policy"]


def test_no_file_but_the_pages_own_is_given(client: TestClient):
    for name in ("app.py", "..%2Fapp.py", "%2e%2e/app.py", "missing.js", "index.html%00"):
        assert client.get(f"/page/{name}").status_code in (404, 400)
    for path in ("/docs", "/redoc", "/openapi.json"):
        refused(client.get(path), 404)
