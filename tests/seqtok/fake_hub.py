"""A hub on this machine: the few addresses that huggingface_hub asks when a model folder is pushed and fetched."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_this_test"
LARGE = (".safetensors", ".model")  # what the hub's .gitattributes has go through git-lfs


class FakeHub(ThreadingHTTPServer):
    """Repositories by name: whether they are private, and for every branch its commits, each the files by name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.private: dict[str, bool] = {}
        self.branches: dict[str, dict[str, list[dict[str, bytes]]]] = {}
        self.large: dict[str, bytes] = {}  # by sha256


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


def commit_name(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + content)
    return digest.hexdigest()


class _Answer(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def _say(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any) -> None:
        self._say(200, json.dumps(value).encode(), Content_Type="application/json")

    def _refuse(self, status: int, code: str) -> None:
        self._say(status, X_Error_Code=code, X_Error_Message=code)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self) -> None:
        content = self._body()
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self._say(200)

    def do_POST(self) -> None:
        body, way = self._body(), urlsplit(self.path).path.strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._say(401)
        if way == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if way == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if way[-1] == "batch":  # OWNER/NAME.git/info/lfs/objects/batch
            objects = json.loads(body)["objects"]
            actions = {"upload": {"href": f"{self.server.address}/large"}}
            return self._json({"transfer": "basic", "objects": [{**one, "actions": actions} for one in objects]})
        name, action, branch = "/".join(way[2:4]), way[4], unquote(way[5])  # api/models/OWNER/NAME/ACTION/BRANCH
        branches = self.server.branches[name]
        if action == "branch":
            known = branch in branches
            branches.setdefault(branch, [{}])
            return self._refuse(409, "Exists") if known else self._json({})
        if branch not in branches:
            return self._refuse(404, "RevisionNotFound")
        if action == "preupload":
            asked = [one["path"] for one in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in asked}
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            return self._json({"files": files})
        return self._commit(name, branches[branch], [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.branches:
            return self._say(409, json.dumps({"url": f"{self.server.address}/{name}"}).encode())
        self.server.private[name] = asked.get("visibility") == "private"
        self.server.branches[name] = {"main": [{}]}
        return self._json({"url": f"{self.server.address}/{name}"})

    def _commit(self, name: str, commits: list[dict[str, bytes]], lines: list[dict[str, Any]]) -> None:
        files = dict(commits[-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        commits.append(files)
        self._json(
            {"commitUrl": f"{self.server.address}/{name}/commit/{commit_name(files)}", "commitOid": commit_name(files)}
        )

    def _found(self, name: str, revision: str) -> dict[str, bytes] | None:
        branches = self.server.branches.get(name, {})
        commits = [files for branch in branches.values() for files in branch]
        named = [files for files in commits if commit_name(files) == unquote(revision)]
        return branches[revision][-1] if revision in branches else named[0] if named else None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        way = urlsplit(self.path).path.strip("/").split("/")
        asked = way[2:] if way[:2] == ["api", "models"] else way
        name, revision = "/".join(asked[:2]), asked[3] if len(asked) > 3 else "main"
        if self.server.private.get(name, True) and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "RepoNotFound")  # the hub does not tell strangers what there is
        files = self._found(name, revision)
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        if asked is not way and asked[2:3] == ["tree"]:
            return self._json([{"type": "file", "path": path, "size": len(files[path]), "oid": "0"} for path in files])
        if asked is not way:
            about = {"id": name, "sha": commit_name(files), "siblings": [{"rfilename": path} for path in files]}
            return self._json({**about, "private": self.server.private[name], "tags": [], "downloads": 0, "likes": 0})
        content = files.get("/".join(asked[4:]))  # OWNER/NAME/resolve/REVISION/PATH
        if content is None:
            return self._refuse(404, "EntryNotFound")
        tag = hashlib.sha256(content).hexdigest()
        return self._say(200, content, ETag=f'"{tag}"', X_Repo_Commit=commit_name(files))
