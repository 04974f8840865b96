"""Checks of image headers, to reject files that take far more time or memory to decode than their pixels require.

Pillow limits the number of pixels and the size of metadata, but not the number of scans of a JPEG, the size of a TIFF's
tiles, or the amount of data before the pixels. This module checks these before Pillow opens the file.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from reproduction.caffe.errors import DataError

_PNG_TEXTS = 16  # compressed texts; each may expand to 1 MiB
_JPEG_SCANS = 20  # allowed for any image; encoders write about 10
_JPEG_SCANNED = 2_000_000_000  # scans times pixels; small images may have more scans
_TIFF_TILE = 1 << 20  # pixels of a tile that may be larger than the image
_TIFF_PIECES = 4096  # strips or tiles allowed for any image, and one more for every _TIFF_PIECE pixels
_TIFF_PIECE = 64
_GIF_EXTENSIONS = 1 << 20  # bytes before the first frame
_PPM_HEADER = 1 << 16  # bytes

_FRAMES = {0xC0 + i for i in range(16)} - {0xC4, 0xC8, 0xCC}  # a JPEG's SOF markers
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_COMMENT = re.compile(rb"#[^\r\n]*")
_WIDTH, _HEIGHT, _STRIPS, _TILE_WIDTH, _TILE_HEIGHT, _TILES = 256, 257, 273, 322, 323, 324


def check_header(file: BinaryIO) -> None:
    """Check the header of an image file for sizes that make decoding slow or take much memory; then seek to its start.

    Args:
        file: an image file; only the PNG, JPEG, TIFF, GIF and PPM formats are checked.

    Raises:
        DataError: If decoding would take far more time or memory than the pixels require.
        OSError: If the file cannot be read.
    """
    file.seek(0)
    head = file.read(8)
    try:
        if head == b"\x89PNG\r\n\x1a\n":
            _check_png(file)
        elif head.startswith(b"\xff\xd8"):
            _check_jpeg(file)
        elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            _check_tiff(file)
        elif head.startswith((b"GIF87a", b"GIF89a")):
            _check_gif(file)
        elif head[:1] == b"P":
            _check_ppm(file)
    except (struct.error, IndexError):
        pass  # the file is cut off; Pillow reports this
    file.seek(0)


def _check_png(file: BinaryIO) -> None:
    texts = 0
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        texts += kind in (b"zTXt", b"iTXt", b"iCCP")
        if texts > _PNG_TEXTS:
            raise DataError("the PNG has too many compressed texts", want=f"at most {_PNG_TEXTS}")
        if kind == b"IEND":
            return
        file.seek(length + 4, os.SEEK_CUR)


def _check_jpeg(file: BinaryIO) -> None:
    """Check the number of scans of a JPEG that is progressive, or whose first scan lacks some of the components."""
    file.seek(2)
    pixels = components = 0
    while (start := file.read(2)) and start[0] == 0xFF:
        while start[1] == 0xFF:  # padding
            start = start[1:] + file.read(1)
        if start[1] in _WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        body = file.read(max(length - 2, 0))
        if start[1] in _FRAMES:
            height, width, components = struct.unpack(">HHB", body[1:6])
            pixels = height * width
            progressive = start[1] & 3 == 2
        if start[1] == _SCAN:
            if pixels and (progressive or body[0] < components):
                scans = 1 + sum(marker == _SCAN for marker in _segment_markers(file.read()))
                if scans > _JPEG_SCANS and scans * pixels > _JPEG_SCANNED:
                    raise DataError("the JPEG has too many scans", got=scans, want=f"at most {_JPEG_SCANS}")
            return


def _segment_markers(data: bytes) -> Iterator[int]:
    """Yield the markers after the start of the first scan, up to the end of the image."""
    place = 0
    while found := _MARKER.search(data, place):
        marker = found.group()[1]
        if marker == _END:
            return
        yield marker
        (length,) = struct.unpack_from(">H", data, found.end())
        place = found.end() + length


def _check_tiff(file: BinaryIO) -> None:
    file.seek(0)
    head = file.read(16)
    order, big = "<" if head[:2] == b"II" else ">", head[2:4].strip(b"\0") == b"+"
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
    file.seek(offset)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    entry = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
    entries = file.read(min(count, 1 << 16) * entry.size)
    found = dict.fromkeys((_WIDTH, _HEIGHT, _STRIPS, _TILE_WIDTH, _TILE_HEIGHT, _TILES), 0)
    for tag, kind, number, value in entry.iter_unpack(entries[: len(entries) // entry.size * entry.size]):
        if tag in (_STRIPS, _TILES):
            found[tag] = max(found[tag], number)
        elif tag in found and kind in (1, 3, 4, 16):
            form = {1: "B", 3: "H", 4: "I", 16: "Q"}[kind]
            found[tag] = max(found[tag], *struct.unpack_from(order + form, value))
    pixels = found[_WIDTH] * found[_HEIGHT]
    tile, pieces = found[_TILE_WIDTH] * found[_TILE_HEIGHT], max(found[_STRIPS], found[_TILES])
    if tile > max(pixels, _TIFF_TILE):
        size = f"{found[_TILE_WIDTH]} x {found[_TILE_HEIGHT]}"
        raise DataError("the TIFF has tiles that are larger than the image", got=size)
    if pieces > (most := _TIFF_PIECES + pixels // _TIFF_PIECE):
        raise DataError("the TIFF has too many strips or tiles for its size", got=pieces, want=f"at most {most}")


def _check_gif(file: BinaryIO) -> None:
    file.seek(10)
    flags = file.read(1)[0]
    file.seek(13 + ((6 << (flags & 7)) if flags & 0x80 else 0))
    start = file.tell()
    while file.read(1) == b"!":
        file.seek(1, os.SEEK_CUR)
        while length := file.read(1)[0]:
            file.seek(length, os.SEEK_CUR)
            if file.tell() - start > _GIF_EXTENSIONS:
                want = f"at most {_GIF_EXTENSIONS:,} bytes"
                raise DataError("the GIF has too much data before its first frame", want=want)


def _check_ppm(file: BinaryIO) -> None:
    file.seek(0)
    head = file.read(_PPM_HEADER)
    if len(head) == _PPM_HEADER and len(_COMMENT.sub(b"", head).split(maxsplit=3)) < 4:
        raise DataError("the header is too long", want=f"at most {_PPM_HEADER:,} bytes")
