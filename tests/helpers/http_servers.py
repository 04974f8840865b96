"""An HTTP server on loopback whose answers can have faults.

    with servers.serve() as site:
        site.add("a.tar", b"bytes", drop(after=100))      # the first answer is cut, the next is complete
        site.add("b.bin", Path("big.bin"))                # served from the file, not from memory
        download(site.url + "/a.tar")
        assert [r.range for r in site.requests] == [None, "bytes=100-"]

A fault is a function that changes an answer before it is sent; each is used for one request, in order. After the last
fault, the file is served correctly: HEAD, Range, If-Range, ETag, Content-Length.
"""

import hashlib
import io
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import unquote, urlsplit

CHUNK = 1 << 16


@dataclass
class Answer:
    """An answer before it is sent, which a fault may change."""

    body: bytes | Path
    start: int = 0
    stop: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    send_bytes: int | None = None  # cut the connection after this many bytes of the body
    pause_s: float = 0.0  # sleep before each chunk
    ranges: bool = True  # whether the server supports Range
    chunk: int = CHUNK
    ignore_if_range: bool = False


Fault = Callable[[Answer], None]


@dataclass(frozen=True)
class Request:
    """A request that the server received."""

    method: str
    path: str
    range: str | None
    if_range: str | None


def drop(after: int) -> Fault:
    """Cut the connection after so many bytes of the body; the headers announce all of it."""

    def fault(answer: Answer) -> None:
        answer.send_bytes = after

    return fault


def page(answer: Answer) -> None:
    """Answer 200 with a web page, like a host whose files have moved."""
    _replace(answer, b"<!DOCTYPE html>\n<html><body>This site has moved.</body></html>\n")
    answer.headers["Content-Type"] = "text/html; charset=utf-8"


def corrupt(answer: Answer) -> None:
    """Serve a file of the right length whose middle byte is wrong."""
    data = bytearray(answer.body.read_bytes() if isinstance(answer.body, Path) else answer.body)
    data[len(data) // 2] ^= 0xFF
    _replace(answer, bytes(data))


def slow(seconds: float, chunk: int = CHUNK) -> Fault:
    """Wait before each chunk of the body."""

    def fault(answer: Answer) -> None:
        answer.pause_s, answer.chunk = seconds, chunk

    return fault


def no_range(answer: Answer) -> None:
    """Ignore Range and serve the whole file with status 200."""
    answer.ranges = False


def status(code: int, **headers: str) -> Fault:
    """Answer with a status, headers and a short body."""

    def fault(answer: Answer) -> None:
        _replace(answer, b"no\n")
        answer.status, answer.ranges = code, False
        answer.headers.update(headers)

    return fault


def redirect(location: str, code: int = 302) -> Fault:
    """Redirect the client to another location."""
    return status(code, Location=location)


def lie(length: int) -> Fault:
    """Send a Content-Length that differs from the length of the body."""

    def fault(answer: Answer) -> None:
        answer.headers["Content-Length"] = str(length)

    return fault


def without(*names: str) -> Fault:
    """Omit headers: ``without("ETag")``, ``without("Content-Length")``."""

    def fault(answer: Answer) -> None:
        answer.headers.update(dict.fromkeys(names, ""))

    return fault


def headed(**headers: str) -> Fault:
    """Send additional headers."""
    return lambda answer: answer.headers.update(headers)


def swap(body: bytes) -> Fault:
    """Serve another file with another ETag, like a host that published a new version."""
    return lambda answer: _replace(answer, body)


def _replace(answer: Answer, body: bytes) -> None:
    answer.body = body
    answer.headers.pop("ETag", None)


class Site:
    """The files of a server, their faults, and the requests that it received."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self._files: dict[str, bytes | Path] = {}
        self._faults: dict[str, Iterator[Fault]] = defaultdict(lambda: iter(()))
        self._lock = Lock()

    def add(self, path: str, body: bytes | Path, *faults: Fault, always: Fault | None = None) -> str:
        """Serve a file and return its URL; each fault applies to one request, ``always`` to every request."""
        path = "/" + path.lstrip("/")
        self._files[path] = body
        self._faults[path] = repeat(always) if always else iter(faults)
        return self.url + path

    def add_tree(self, folder: Path, prefix: str = "") -> None:
        """Serve every file below a folder."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.add(f"{prefix}/{file.relative_to(folder).as_posix()}", file)

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""
        with self._lock:
            self.requests.append(request)
            body = self._files.get(request.path)
            fault = next(self._faults[request.path], None)
        answer = Answer(b"not found\n", status=404, ranges=False) if body is None else Answer(body)
        if fault is not None:
            fault(answer)
        size = _size(answer.body)
        answer.stop = size
        answer.headers.setdefault("ETag", f'"{_digest(answer.body)}"')
        is_same = answer.ignore_if_range or request.if_range in (None, answer.headers["ETag"])
        if answer.ranges and request.range and is_same:
            first, _, last = request.range.removeprefix("bytes=").partition("-")
            answer.start, answer.stop = int(first), min(int(last) + 1, size) if last else size
            if answer.start >= size:
                answer.status, answer.start, answer.stop = 416, 0, 0
                answer.headers["Content-Range"] = f"bytes */{size}"
            else:
                answer.status = 206
                answer.headers["Content-Range"] = f"bytes {answer.start}-{answer.stop - 1}/{size}"
        answer.headers.setdefault("Content-Length", str(answer.stop - answer.start))
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        request = Request(
            self.command, unquote(urlsplit(self.path).path), self.headers.get("Range"), self.headers.get("If-Range")
        )
        answer = self.site.answer(request)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if self.command == "GET":
            self._send(answer)

    do_HEAD = do_GET

    def _send(self, answer: Answer) -> None:
        left = answer.stop - answer.start
        if answer.send_bytes is not None:
            left = min(left, answer.send_bytes)
        with answer.body.open("rb") if isinstance(answer.body, Path) else io.BytesIO(answer.body) as file:
            file.seek(answer.start)
            while left > 0 and (block := file.read(min(left, answer.chunk))):
                if answer.pause_s:
                    time.sleep(answer.pause_s)
                try:
                    self.wfile.write(block)
                except OSError:  # the client closed the connection
                    return
                left -= len(block)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _size(body: bytes | Path) -> int:
    return body.stat().st_size if isinstance(body, Path) else len(body)


def _digest(body: bytes | Path) -> str:
    if isinstance(body, Path):
        stat = body.stat()
        return f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
    return hashlib.sha1(body).hexdigest()[:16]


@contextmanager
def serve(root: Path | None = None) -> Iterator[Site]:
    """Run a server on a free port of 127.0.0.1 inside a ``with`` block, which no proxy is used for."""
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    if root is not None:
        site.add_tree(root)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    os.environ.update(dict.fromkeys(before, "127.0.0.1"))
    try:
        yield site
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        server.shutdown()
        server.server_close()
        thread.join()
