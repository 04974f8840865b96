"""Google Drive's confirmation page: what it answers instead of a file that is too large for its virus scan.

The page has a form ``download-form`` whose action and hidden inputs give the URL of the file. It may only lead to
Google Drive itself.
"""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

ORIGINS = ("https://drive.google.com", "https://drive.usercontent.google.com")
"""Scheme and host of the addresses of Google Drive."""
MAX_PAGE_BYTES = 64 << 10
"""The most that is read of a page."""
_FORM_ID = "download-form"


def is_drive_url(url: str) -> bool:
    """Return True if a URL is one of Google Drive."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return f"{parts.scheme}://{parts.netloc}" in ORIGINS


def find_confirmed_url(page: bytes, url: str) -> str | None:
    """Return the URL that the form of a confirmation page requests; None if the page has no such form.

    Args:
        page: The page, or its beginning.
        url: The URL of the page, to which a relative action refers.
    """
    form = _DownloadForm()
    try:
        form.feed(page.decode("utf-8", "replace"))
        if form.action is None:
            return None
        parts = urlsplit(urljoin(url, form.action))
    except (AssertionError, ValueError):  # invalid HTML, or an action that is not a URL
        return None
    return parts._replace(query=urlencode(form.inputs), fragment="").geturl()


class _DownloadForm(HTMLParser):
    """The action and the hidden inputs of the first download form of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.inputs: list[tuple[str, str]] = []
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            is_get = values.get("method", "get").lower() == "get"
            self._is_inside = self.action is None and is_get and values.get("id") == _FORM_ID
            if self._is_inside:
                self.action = values.get("action", "")
        elif tag == "input" and self._is_inside and values.get("type", "").lower() == "hidden" and "name" in values:
            self.inputs.append((values["name"], values.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._is_inside = False
