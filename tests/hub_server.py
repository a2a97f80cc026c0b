"""A small Hub on localhost: the endpoints that the real client asks, over HTTP, with faults.

Repositories live in memory. Tokens are names: "hf_user" is the token of user. What a fault matches
answers with it, as often as it says; everything that was asked is in `server.asked`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer

import yaml
from hub_faults import Fault, FaultyHandler

USERS = ("user", "guest")
PREFIX = r"/(?:api/)?(?:(?P<type>models|datasets)/)?(?P<repo>[\w.-]+/[\w.-]+?)"


@dataclass
class Repo:
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        before = self.commits.get(self.branches.get(branch, ""), {})
        seed = f"{branch} {len(self.commits)}"
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha] = {**before, **files}
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> str | None:
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else None


class HubServer:
    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.agents: set[str] = set()
        self.sent = 0
        self.num_pull_requests = 0
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self})
        )
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    def close(self) -> None:
        for fault in self.faults:
            if fault.hang is not None:
                fault.hang.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False) -> str:
        """Makes a repository of datasets, as if somebody had pushed it."""
        repo = self.repos.setdefault(f"datasets/{name}", Repo(private))
        return repo.commit("main", files)

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        repo = self.repos[f"datasets/{name}"]
        sha = repo.at(revision)
        assert sha is not None
        return {path: self._content(path, body) for path, body in repo.commits[sha].items()}

    def _content(self, path: str, body: bytes) -> bytes:
        return self.blobs[body[4:].decode()] if body.startswith(b"lfs:") else body


class Handler(FaultyHandler):
    hub: HubServer

    # Who asks, and for what

    def _answer(self):
        given = self.headers.get("Authorization")
        self.user = None if given is None else given.removeprefix("Bearer hf_")
        if self.route.startswith("/lfs/"):
            return self._lfs_object(self.route.rpartition("/")[2])
        if given is not None and self.user not in USERS:
            return self._refuse(401, "Invalid credentials in Authorization header")
        if self.route == "/api/whoami-v2":
            return self._json({"name": self.user, "type": "user"})
        if self.route == "/api/validate-yaml":
            return self._validate(json.loads(self.content)["content"])
        if self.route == "/api/repos/create":
            return self._create(json.loads(self.content))
        for pattern, answer in self.ROUTES:
            if match := re.fullmatch(PREFIX + pattern, self.route):
                groups = match.groupdict()
                key = f"{groups.pop('type') or 'models'}/{groups.pop('repo')}"
                repo = self.hub.repos.get(key)
                if repo is None or (repo.private and self.user != key.split("/")[1]):
                    status = 401 if self.user is None else 404
                    return self._refuse(status, "Repository not found", "RepoNotFound")
                # Of a pull request, the client uploads files before it says that it is one.
                asks = self.command in ("GET", "HEAD") or self.route.endswith("/objects/batch")
                writes = not asks and "create_pr" not in self.query
                if writes and self.user != key.split("/")[1]:
                    return self._refuse(403, "You have read access but no other permissions")
                return answer(self, key, repo, **groups)
        return self._refuse(404, "Not found")

    def _validate(self, card: str):
        bad = not card.startswith("---\n") or "license: nonsense\n" in card
        errors = [{"message": '"license" must be one of the list'}] if bad else []
        return self._json({"errors": errors, "warnings": []}, 400 if bad else 200)

    def _create(self, wish):
        if self.user is None:
            return self._refuse(401, "Invalid username or password.")
        owner = wish["organization"] or self.user
        key = f"{wish['type']}s/{owner}/{wish['name']}"
        if key in self.hub.repos:
            page = f"{self.hub.endpoint}/{key}"
            return self._json({"error": "You already created this repo", "url": page}, 409)
        if owner != self.user:
            return self._refuse(403, "You don't have the rights to create a repo there")
        repo = self.hub.repos[key] = Repo(wish.get("visibility") == "private")
        repo.commit("main", {".gitattributes": b"*.png filter=lfs\n"})
        return self._json({"url": f"{self.hub.endpoint}/{key}"})

    def _info(self, key, repo, revision="main"):
        sha = repo.at(revision)
        if sha is None:
            return self._refuse(404, "Invalid rev id", "RevisionNotFound")
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        name = key.partition("/")[2]
        about = {"id": name, "sha": sha, "private": repo.private, "siblings": siblings}
        _, *parts = repo.commits[sha].get("README.md", b"").decode().split("---\n")
        return self._json({**about, "cardData": yaml.safe_load(parts[0]) if parts else None})

    def _branch(self, key, repo, revision):
        if revision in repo.branches:
            return self._refuse(409, "Reference already exists")
        repo.branches[revision] = repo.branches["main"]
        return self._json({})

    def _preupload(self, key, repo, revision):
        if repo.at(revision) is None:
            return self._refuse(404, "Invalid rev id", "RevisionNotFound")
        modes = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(".png") else "regular",
                "shouldIgnore": False,
            }
            for one in json.loads(self.content)["files"]
        ]
        return self._json({"files": modes})

    def _lfs_batch(self, key, repo):
        objects = [
            {
                **one,
                "actions": {
                    "upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"},
                    "verify": {"href": f"{self.hub.endpoint}/lfs/verify"},
                },
            }
            for one in json.loads(self.content)["objects"]
        ]
        return self._json({"transfer": "basic", "objects": objects})

    def _lfs_object(self, oid: str):
        if self.command == "PUT":
            assert hashlib.sha256(self.content).hexdigest() == oid
            self.hub.blobs[oid] = self.content
        return 200, {}, b"" if self.command in ("PUT", "POST") else self.hub.blobs[oid]

    def _commit(self, key, repo, revision):
        lines = [json.loads(line) for line in self.content.splitlines()]
        assert lines[0]["key"] == "header"
        files = {
            line["value"]["path"]: b"lfs:" + line["value"]["oid"].encode()
            if line["key"] == "lfsFile"
            else base64.b64decode(line["value"]["content"])
            for line in lines[1:]
        }
        page = f"{self.hub.endpoint}/{key}"
        request = None
        if "create_pr=1" in self.query:
            self.hub.num_pull_requests += 1
            revision = f"refs/pr/{self.hub.num_pull_requests}"
            request = f"{page}/discussions/{self.hub.num_pull_requests}"
        sha = repo.commit(revision, files)
        answer = {"commitUrl": f"{page}/commit/{sha}", "commitOid": sha, "pullRequestUrl": request}
        return self._json(answer)

    def _resolve(self, key, repo, revision, path):
        sha = repo.at(revision)
        if sha is None:
            return self._refuse(404, "Invalid rev id", "RevisionNotFound")
        if path not in repo.commits[sha]:
            return self._refuse(404, "Entry not found", "EntryNotFound")
        body = repo.commits[sha][path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
        if body.startswith(b"lfs:"):
            oid = body[4:].decode()
            size = str(len(self.hub.blobs[oid]))
            headers |= {
                "X-Linked-Etag": f'"{oid}"',
                "X-Linked-Size": size,
                "Location": f"/lfs/{oid}",
            }
            return 302, headers, b""
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return 206, headers, body[start:]
        return 200, headers, body

    ROUTES = (
        (r"/resolve/(?P<revision>.+?)/(?P<path>[^/]+)", _resolve),
        (r"/preupload/(?P<revision>.+)", _preupload),
        (r"/commit/(?P<revision>.+)", _commit),
        (r"/branch/(?P<revision>.+)", _branch),
        (r"\.git/info/lfs/objects/batch", _lfs_batch),
        (r"/revision/(?P<revision>.+)", _info),
        ("", _info),
    )
