"""HTTP for downloads, with safe redirects and limits on what a server may send apart from the file.

A malicious server can send interim responses, headers or chunk frames endlessly, each byte just before the timeout.
Here the headers, and then each block of the file, must arrive within one timeout and a limited number of bytes.
"""

from __future__ import annotations

import http.client
import io
import time
import urllib.request
from socket import socket
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import Request

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEADER_BYTES = 64 << 10
"""The most bytes of all headers of an answer, those of interim answers included."""
_FRAME_BYTES = 64 << 10  # limit of the chunk sizes and trailers that come with a block of a file


class RefusedRedirectError(Exception):
    """Raised when a server redirects to an address that is not safe to follow; the message says why."""


class _LimitedReader(io.RawIOBase):
    """A raw connection from which only a limited number of bytes can be read until a deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket) -> None:
        self._raw, self._sock = raw, sock
        self._timeout_s = sock.gettimeout() or 60.0
        self.allow(HEADER_BYTES)

    def allow(self, size: int) -> None:
        """Allow ``size`` bytes to be read within one timeout from now."""
        self._left, self._deadline = size, time.monotonic() + self._timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        if self._left <= 0:
            raise http.client.HTTPException("too many bytes besides the file")
        self._sock.settimeout(seconds)
        count = self._raw.readinto(memoryview(buffer)[: self._left])
        self._left -= count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """An HTTP response whose headers, and each block of whose body, must arrive within limits of time and bytes."""

    def __init__(self, sock: socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._paced = _LimitedReader(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._paced)

    def _read_status(self) -> tuple[str, int, str]:
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        while 100 < found[1] < 200:  # the base class skips only status 100
            http.client.parse_headers(self.fp)
            found = super()._read_status()  # type: ignore[misc]
        return found

    def block(self, size: int) -> bytes:
        """Return the next bytes of the body, at most ``size``; empty bytes at the end.

        Raises:
            OSError: If the connection broke, or nothing arrived in time.
            http.client.HTTPException: If the response is not valid HTTP.
        """
        self._paced.allow(size + _FRAME_BYTES)
        return self.read1(size)


class _Connection(http.client.HTTPConnection):
    response_class = Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)


class _Redirect(urllib.request.HTTPRedirectHandler):
    """A handler that follows redirects to http and https only, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        fp.close()  # the base class would read the whole body
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https"):
            raise RefusedRedirectError(f"it redirects to {newurl[:200]!r}, which is not an http address")
        if (req.type, scheme) == ("https", "http"):
            raise RefusedRedirectError(f"it redirects from https to {newurl[:200]!r}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def build_opener() -> urllib.request.OpenerDirector:
    """Return a ``urllib`` opener for http and https URLs that opens no files and returns a ``Response`` with limits."""
    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _Http(),
        _Https(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirect(),
    ):
        made.add_handler(handler)
    return made
