"""Hashes of files and lists, by which files and runs are identified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from reproduction.caffe.errors import StrPath
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Progress

_CHUNK_BYTES = 1 << 20


def compute_hashes(path: StrPath, kinds: Iterable[str], progress: Progress | None = None) -> dict[str, str]:
    """Compute several hashes of a file in one pass.

    Args:
        path: the file.
        kinds: names of the hashes, as in ``hashlib``, such as ``sha256``.
        progress: called with the number of bytes read so far and the size of the file.

    Returns:
        The hexadecimal hashes by kind.
    """
    hashers = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    done = 0
    with files.open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        while hashers and (block := file.read(_CHUNK_BYTES)):
            for hasher in hashers.values():
                hasher.update(block)
            done += len(block)
            if progress:
                progress(done, size)
    return {kind: hasher.hexdigest() for kind, hasher in hashers.items()}


def hash_file(path: StrPath) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits."""
    return compute_hashes(path, ["sha256"])["sha256"]


def hash_lines(lines: Iterable[str]) -> str:
    """Return the SHA-1 of lines as hexadecimal digits, as ``sha1sum`` prints it for a text file of these lines."""
    return hashlib.sha1("".join(f"{line}\n" for line in lines).encode(), usedforsecurity=False).hexdigest()
