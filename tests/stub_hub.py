"""A server on loopback that answers huggingface_hub as the hub does, from folders here, and notes what is asked."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from loopback import Quiet, listening

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def entry(file: Path, folder: Path) -> dict:
    """A file as the hub lists it, its content told by a hash."""
    content = file.read_bytes()
    return {
        "type": "file",
        "path": file.relative_to(folder).as_posix(),
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }


def answer(repositories: Mapping[str, Path], path: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers: a repository told, its files listed, one of them sent."""
    for name, folder in repositories.items():
        files = [entry(file, folder) for file in sorted(folder.rglob("*")) if file.is_file()]
        if path.startswith(f"/api/models/{name}/tree/"):
            return 200, json.dumps(files).encode(), {"Content-Type": "application/json"}
        if path.startswith(f"/api/models/{name}"):
            return 200, json.dumps({"id": name, "sha": COMMIT}).encode(), {"Content-Type": "application/json"}
        for file in files:
            if path == f"/{name}/resolve/{COMMIT}/{file['path']}":
                headers = {"ETag": f'"{file["oid"]}"', "X-Repo-Commit": COMMIT}
                return 200, (folder / file["path"]).read_bytes(), headers
    return 404, b"{}", {"X-Error-Code": "RepoNotFound"}


@contextmanager
def hub(repositories: Mapping[str, Path]):
    """The address of a hub that has these repositories, and the list of paths that it was asked for."""
    asked: list[str] = []

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            status, body, headers = answer(repositories, path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

    with listening(Handler) as address:
        yield address, asked
