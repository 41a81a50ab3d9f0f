"""A server like G-Node GIN for tests: git over HTTP, raw content, and every way to fail."""

import hashlib
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sensorium_models.recordings.annex import AnnexKey

GIT_IDENTITY = {
    "GIT_AUTHOR_NAME": "lab",
    "GIT_AUTHOR_EMAIL": "lab@example.org",
    "GIT_COMMITTER_NAME": "lab",
    "GIT_COMMITTER_EMAIL": "lab@example.org",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}

Fault = Callable[["Handler", bytes], None]


@dataclass
class GinServer:
    """Serves the repositories in `repositories` and the content in `files`, by path.

    Each request for content meets the next of `faults`, and none when they are used up; `requests`
    lists (path, Range header) of all of them.
    """

    repositories: Path
    files: dict[str, Any] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    ranges: bool = True
    release: threading.Event = field(default_factory=threading.Event)
    most_at_once: int = 0
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    address: str = ""

    def publish(self, repository: str, file: str, content: bytes, **how: Any) -> str:
        """Commit a pointer to `content` and serve it; returns the commit."""
        commit = self.commit(repository, {file: pointer(content, **how)})
        self.files[f"/{repository}/raw/{commit}/{file}"] = content
        return commit

    def commit(self, repository: str, files: dict[str, "str | bytes"]) -> str:
        """Commit files; a text that begins with a dot becomes a symbolic link to it."""
        bare = self.repositories / f"{repository}.git"
        work = self.repositories / f"{repository}.work"
        if not work.exists():
            _git("init", "--quiet", "--initial-branch=master", str(work))
            _git("init", "--quiet", "--bare", "--initial-branch=master", str(bare))
            _git("--git-dir", str(bare), "config", "uploadpack.allowFilter", "true")
        for name, content in files.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if isinstance(content, str) and content.startswith("."):
                path.symlink_to(content)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        _git("-C", str(work), "add", "--all")
        _git("-C", str(work), "commit", "--quiet", "--allow-empty", "--message", "data")
        _git("-C", str(work), "push", "--quiet", "--force", str(bare), "HEAD:refs/heads/master")
        return _git("-C", str(work), "rev-parse", "HEAD").strip()


def key_of(content: bytes, *, backend: str = "MD5E") -> AnnexKey:
    algorithm = backend.removesuffix("E").lower()
    extension = ".zip" if backend.endswith("E") else ""
    checksum = hashlib.new(algorithm, content).hexdigest()
    return AnnexKey.parse(f"{backend}-s{len(content)}--{checksum}{extension}")


def pointer(content: bytes, *, backend: str = "MD5E", locked: bool = True) -> str:
    """What git holds for `content`: the target of a link, or the text of a pointer file."""
    text = key_of(content, backend=backend).text
    return f".git/annex/objects/Gx/7z/{text}/{text}" if locked else f"/annex/objects/{text}\n"


@contextmanager
def gin_server(
    repositories: Path, *, certificate: tuple[Path, Path] | None = None
) -> Iterator[GinServer]:
    """Run a server; with a certificate and its key, over TLS."""
    gin = GinServer(repositories)
    server = _Server(("127.0.0.1", 0), type("_Handler", (Handler,), {"gin": gin}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    gin.address = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield gin
    finally:
        gin.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of these tests; other errors are shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    gin: GinServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if ".git/" in self.path:
            return self._git()
        span = self.headers.get("Range")
        with self.gin.lock:
            self.gin.requests.append((self.path, span))
            fault = self.gin.faults.popleft() if self.gin.faults else None
            self.gin.now += 1
            self.gin.most_at_once = max(self.gin.most_at_once, self.gin.now)
        try:
            content = self.gin.files.get(self.path)
            if content is None:
                return self.answer(404)
            return fault(self, content) if fault else self.serve(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.gin.lock:
                self.gin.now -= 1

    do_POST = do_GET

    def begins(self) -> int:
        """The byte that a range asked for begins with, if this server knows ranges."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        return int(asked[1]) if asked and self.gin.ranges else 0

    def head(self, content: bytes, *, length: int | None = None) -> memoryview:
        """Send the head of an honest answer; returns the body that should follow."""
        first = self.begins()
        body = memoryview(content)[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        return body

    def serve(self, content: bytes) -> None:
        self.wfile.write(self.head(content))

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass

    def _git(self) -> None:
        """git's own HTTP server program, as a CGI script."""
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            raise AssertionError("small requests of git are not chunked")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            env={
                **os.environ,
                **GIT_IDENTITY,
                "GIT_PROJECT_ROOT": str(self.gin.repositories),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(length),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_ADDR": "127.0.0.1",
            },
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = int(fields.pop("Status", "200").split()[0])
        fields.pop("Content-Length", None)
        self.answer(status, content, **{n.replace("-", "_"): v for n, v in fields.items()})


# Ways to fail, one request each.


def drop_after(count: int) -> Fault:
    """An honest head, `count` bytes of the body, and the connection is gone."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.wfile.write(handler.head(content)[:count])
        handler.close_connection = True

    return fault


def stall_after(count: int) -> Fault:
    """`count` bytes of the body and then silence."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.wfile.write(handler.head(content)[:count])
        handler.wfile.flush()
        handler.gin.release.wait(60)
        handler.close_connection = True

    return fault


def busy(status: int, retry_after: str | None = None) -> Fault:
    def fault(handler: Handler, content: bytes) -> None:
        handler.answer(status, **({"Retry_After": retry_after} if retry_after else {}))

    return fault


def other(body: bytes, **headers: str) -> Fault:
    """A whole, well-formed answer with another body."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.answer(200, body, **headers)

    return fault


def unlengthed(body: bytes) -> Fault:
    """A body whose length no header tells; it ends with the connection."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return fault


def corrupt(handler: Handler, content: bytes) -> None:
    """The right number of bytes, one of them wrong."""
    body = bytearray(handler.head(content))
    body[len(body) // 2] ^= 1
    handler.wfile.write(body)


def slow(seconds: float) -> Fault:
    def fault(handler: Handler, content: bytes) -> None:
        time.sleep(seconds)
        handler.serve(content)

    return fault


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **GIT_IDENTITY},
    ).stdout
