"""Any file's bytes → an upright RGB picture, or an error that names the file and the reason.

What a file is, is told by its content and never by its name. Each container is first read here, within limits: its
size in pixels, its orientation and its colour profile are taken out, and Pillow is handed a file of the pixels alone.
So no decoder meets metadata (where most hostile files hide their bombs), none starts before the size is known to be
within the limits, and a broken profile or EXIF block never costs the picture.

Pillow's classes are called directly. ``Image.open`` would import every format that Pillow knows, Ghostscript's among
them, and its limit on pixels is a global of the whole process that warns or raises as other code has set it.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from io import BytesIO
from numbers import Integral
from struct import pack, unpack_from
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from clothing_classifier.machine import Room, available_memory

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform
    from PIL.ImageFile import ImageFile

SUFFIXES: Final = frozenset(
    f".{suffix}"
    for suffix in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo"),
        *("png", "apng", "webp", "gif", "bmp", "tif", "tiff"),
        *("avif", "heic", "heif", "hif"),
    )
)
"""Suffixes, in lower case, of the files that `open_picture` reads. It does not ask for them itself."""


SYSTEM_FOLDERS: Final = frozenset({"__macosx", "@eadir", "#recycle"})
"""Folders, in lower case, that archivers and network drives put beside photos, with smaller or deleted ones in them."""

Kind: TypeAlias = Literal[
    "unreadable", "not-a-picture", "no-decoder", "too-large", "too-many-pixels", "too-much-memory"
]
"""Why a file gives no picture, for programs: it cannot be read, or is damaged or unusual; it is something else, or a
picture of a kind that is not read here; the package that decodes its kind is not installed; its bytes or its pixels are
over the limit; the memory does not suffice."""

RAISE_LIMIT: Final = ", or raise the limit if you trust it"
"""How reasons end that are of a limit, for whoever sets it."""


class PhotoError(Exception):
    """A file gives no picture.

    Attributes:
        name: what the file is called.
        reason: why, and where something helps, what to do; it follows the name: "is empty".
        kind: which `Kind` of reason it is.
    """

    def __init__(self, name: str, reason: str, kind: Kind = "unreadable") -> None:
        super().__init__(name, reason, kind)  # all of them, so that it can be sent to another process
        self.name = name
        self.reason = reason
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a photo may be. Both limits are checked before anything is decoded.

    Reading a photo takes up to 20 bytes of memory a pixel, and up to five times the file.

    Attributes:
        max_bytes: the file's size, in bytes.
        max_pixels: width × height.

    Raises:
        ValueError: a limit is below 1.
        TypeError: it is no whole number.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 120_000_000

    def __post_init__(self) -> None:
        for name, limit in (("max_bytes", self.max_bytes), ("max_pixels", self.max_pixels)):
            if not isinstance(limit, Integral):
                raise TypeError(f"{name} must be a whole number, not {limit!r}")
            if limit < 1:
                raise ValueError(f"{name} must be at least 1, not {limit}")


DEFAULT_LIMITS: Final = Limits()


def open_picture(
    source: str | os.PathLike[str] | bytes,
    *,
    name: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    target: Callable[[int, int], tuple[int, int]] | None = None,
    room: Room | None = None,
) -> Image.Image:
    """Read a photo: JPEG (MPO included), PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC.

    The picture is turned as its EXIF orientation says, its colours are converted to sRGB, transparency is laid over
    white, and deep grey is scaled by its format's full range. Of an animation or a file of several pictures, the first
    one (HEIC: the primary one) is read. May be called from several threads at once; those whose pictures would together
    take more memory than there is room for wait for each other.

    Args:
        source: a path, or the content of a file.
        name: what errors call the file; by default the path, or ``<bytes>``.
        limits: how large the photo may be.
        target: a function from the upright picture's width and height to those that it will be resized to. A JPEG is
            then decoded at the smallest scale (an eighth, a quarter, a half) that still has one and a half times that
            many rows and columns, several times as fast as whole; what else is far larger is reduced before its colours
            are converted. By default all pixels are decoded, and kept.
        room: where the memory for the pixels is taken from; by default half of what this process may use.

    Returns:
        A picture of mode ``RGB``, 8 bits a channel, with nothing in its ``info``.

    Raises:
        PhotoError: the file cannot be read, is over a limit, is no picture, or is damaged.

    >>> open_picture(b"%PDF-1.7 ...", name="order.jpg")
    Traceback (most recent call last):
    clothing_classifier.images.PhotoError: order.jpg: is a PDF document, not a picture
    """
    if name is None:
        name = "<bytes>" if isinstance(source, bytes) else os.fsdecode(source)
    form = "picture"
    try:
        data = _read(source, limits.max_bytes)
        form = _identify(data)
        opened = _OPENERS[form](data, limits.max_pixels)
        _check_size(*opened.picture.size, limits.max_pixels)
        # However small it is given, all of a JPEG of several scans is held: two bytes of each colour of each pixel.
        held = 6 * math.prod(opened.picture.size) if opened.several_scans else 0
        wanted = None if target is None else _shrink(opened, target)
        with (room or _room).take(_BYTES_A_PIXEL * math.prod(opened.picture.size) + held):
            return _decode(opened, wanted)
    except _Unreadable as error:
        raise PhotoError(name, error.reason, error.kind) from error.__cause__
    except MemoryError as error:
        reason = "needs more memory than there is; make it smaller, or lower the limit"
        raise PhotoError(name, reason, "too-much-memory") from error
    except ImportError as error:
        raise PhotoError(name, f"is {form}, whose decoder is not installed ({error})", "no-decoder") from error
    except Exception as error:  # a decoder may fail in any way on a damaged file
        early = isinstance(error, (struct.error, IndexError, EOFError))
        detail = "it ends too early" if early else " ".join(str(error).split()) or type(error).__name__
        raise PhotoError(name, f"is damaged or cut short; copy or export it again ({form}: {detail[:200]})") from error


def explain_missing(path: str) -> str:
    """Return why there is no file at a path, as a `PhotoError`'s reason."""
    if not path:
        return "is an empty name"
    if is_address(path):
        return "is a web address, not a file; download the photo, and give the file"
    return "does not exist"


def is_address(path: str) -> bool:
    """Say whether what was given as a path is a web address: ``https://…``, ``s3://…``."""
    return re.match(r"[a-z][a-z0-9+.-]*://", path, re.IGNORECASE) is not None


def has_unset_alpha(picture: Image.Image) -> bool:
    """Say whether a picture's alpha channel is one that was never written, and not transparency.

    Windows programs and the clipboard announce an alpha channel in a BMP of 32 bits, and leave all of it 0.

    Args:
        picture: as Pillow has opened it, with its pixels loaded.
    """
    bitmap = picture.format in ("BMP", "DIB") and picture.mode == "RGBA"
    return bitmap and picture.getchannel("A").getextrema() == (0, 0)


# --------------------------------------------------------------------------------------------------- file → bytes


class _Unreadable(Exception):
    """Reason and kind of a `PhotoError`, raised where the file's name is not known."""

    def __init__(self, reason: str, kind: Kind = "unreadable") -> None:
        super().__init__(reason, kind)
        self.reason = reason
        self.kind = kind


def _read(source: str | os.PathLike[str] | bytes, max_bytes: int) -> bytes:
    if isinstance(source, bytes):
        size, data = len(source), source
    else:
        try:
            status = os.stat(source)
            if stat.S_ISDIR(status.st_mode):
                raise _Unreadable("is a folder, not a picture", "not-a-picture")
            if not stat.S_ISREG(status.st_mode):  # opening a pipe waits for its writer, perhaps for ever
                raise _Unreadable("is a pipe or a device, not a file")
            size, data = status.st_size, b""
            if size <= max_bytes:
                with open(source, "rb") as file:
                    data = file.read(size + 1)
                size = len(data)
        except FileNotFoundError as error:
            raise _Unreadable(explain_missing(os.fsdecode(source))) from error
        except PermissionError as error:
            raise _Unreadable("may not be read: permission denied") from error
        except (OSError, ValueError) as error:  # ValueError: a path with a null character in it
            raise _Unreadable(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if size > max_bytes:
        raise _Unreadable(
            f"is {size:,} bytes, over the limit of {max_bytes:,}; make it smaller{RAISE_LIMIT}", "too-large"
        )
    if not data:
        raise _Unreadable("is empty")
    return data


# ------------------------------------------------------------------------------------------------- bytes → format

_STARTS: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
)

_OTHER_STARTS: Final = (  # text in lower case
    (b"%pdf", "a PDF document"),
    (b"%!ps", "a PostScript document"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG document"),
    (b"{", "a JSON document"),
    (b"version https://git-lfs", "a Git LFS pointer (git lfs pull fetches the file itself)"),
    (b"\0\5\x16\7", "a macOS resource file that accompanies another file"),
    (b"PK\3\4", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL picture, which cannot be read here"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture, which cannot be read here"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture, which cannot be read here"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"\0\0\1\xba", "a video"),
    (b"RIFF", "an audio or video file"),
    (b"OggS", "an audio or video file"),
    (b"ID3", "an audio file"),
)

_HEIF_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def _identify(data: bytes) -> str:
    for start, kind in _STARTS:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        box = data[: min(int.from_bytes(data[:4], "big"), 1024)]
        brands = {box[place : place + 4] for place in (8, *range(16, len(box), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIC"
        raise _Unreadable("is a video or a camera's raw file, not a picture; export it as JPEG", "not-a-picture")
    if not data[:4096].strip(b"\0"):
        raise _Unreadable("holds only zeros: its content was lost; copy it again")
    text = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, what in _OTHER_STARTS:
        if data.startswith(start) or text.startswith(start):
            raise _Unreadable(f"is {what}" if "picture" in what else f"is {what}, not a picture", "not-a-picture")
    known = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC"
    raise _Unreadable(f"is not a picture of a known kind ({known})", "not-a-picture")


# ----------------------------------------------------------------------------- container → metadata, and its pixels


@dataclass(frozen=True, slots=True)
class _Opened:
    """A picture within the limits that is ready to be decoded, and what its container says about it."""

    picture: ImageFile
    orientation: int = 1
    profile: bytes | None = None
    white: int | None = 65535
    """Of a deep grey picture: the largest sample value, or ``None`` where the format states none."""
    white_is_zero: bool = False
    """Of a deep grey picture: whether 0 is white and the largest value black."""
    several_scans: bool = False
    """Of a JPEG: whether each of its scans brings a part of the picture."""
    scans: Sequence[bytes | memoryview] = ()
    """Of a progressive JPEG: its pieces, as `_empty_fine_scans` takes them."""


_MAX_PIECES: Final = 100_000
"""Segments, chunks, blocks, boxes or strips that one file may be split into. Honest files have up to a strip for each
row; hostile ones hold millions of empty pieces, each of which costs time and memory."""

_MAX_SCANS: Final = 100
"""Scans of a progressive JPEG. Encoders write about ten; each costs as much as a picture and needs but 200 bytes."""

_MAX_PROFILE: Final = 4 * 2**20
"""Bytes of a colour profile that is still looked at. Those of printing presses have up to three million."""


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise _Unreadable(f"has no pixels ({width} × {height})")
    if width * height > max_pixels:
        raise _Unreadable(
            f"is {width:,} × {height:,} = {width * height:,} pixels, over the limit of {max_pixels:,}; "
            f"make it smaller{RAISE_LIMIT}",
            "too-many-pixels",
        )


def _too_many_pieces() -> _Unreadable:
    return _Unreadable(f"is split into more than {_MAX_PIECES:,} pieces; export it again")


_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # \xff\x00 and the restart markers are part of a scan

_BLOCK: Final = 2**19
"""Bytes looked through at a time: few enough to stay in the processor's cache."""

_SOI, _EOI, _SOS, _EXIF, _ICC, _COMMENT = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0xFE
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DROPPED: Final = frozenset(range(0xE1, 0xF0)) - {0xEE} | {_COMMENT}  # JFIF and Adobe say how colours are coded


def _find_end_of_scan(data: bytes, start: int) -> int:
    """Return where the next `_MARKER` is, or the end of the data. While numpy looks, other threads work."""
    values = np.frombuffer(data, np.uint8)
    for begin in range(start, len(data) - 1, _BLOCK):
        block = values[begin : begin + _BLOCK + 1]
        places = np.flatnonzero((block[:-1] == 0xFF) & (block[1:] != 0))
        kinds = block[places + 1]
        found = places[(kinds != 0xFF) & (kinds & 0xF8 != 0xD0)]
        if len(found):
            return begin + int(found[0])
    return len(data)


def _open_jpeg(data: bytes, max_pixels: int) -> _Opened:
    """ITU-T T.81, annex B. What follows the first picture (an MPO's others, a motion photo's video) is left out."""
    from PIL.JpegImagePlugin import JpegImageFile

    view = memoryview(data)
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    exif = b""
    profile: dict[int, bytes] = {}
    scans = 0
    sequential = progressive = in_scan = False
    end = 2
    for _ in range(_MAX_PIECES):
        found = _MARKER.search(data, _find_end_of_scan(data, end) if in_scan else end)
        if found is None:
            raise _Unreadable("is cut short: its end is missing; copy it again")
        if in_scan:
            kept.append(view[end : found.start()])
        marker, place, end = data[found.start() + 1], found.start(), found.end()
        in_scan = marker == _SOS
        if marker == _EOI:
            break
        if marker in (_SOI, 0x01):
            continue
        end += unpack_from(">H", data, end)[0]
        body = data[place + 4 : end]
        if marker in _FRAMES:
            height, width = unpack_from(">HH", body, 1)
            _check_size(width, height, max_pixels)
            sequential, progressive = marker in (0xC0, 0xC1), marker == 0xC2
        elif marker == _EXIF and body.startswith(b"Exif\0\0"):
            exif = exif or body
        elif marker == _ICC and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]] = body[14:]
        scans += in_scan
        if scans > _MAX_SCANS:
            raise _Unreadable(f"has more than {_MAX_SCANS} scans; export it again")
        if marker not in _DROPPED:
            kept.append(view[place:end])
    else:
        raise _too_many_pieces()
    # Of a sequential scan that ends early, libjpeg paints the rest grey and tells nobody. With zeros in the place of
    # the end marker it asks for more data instead, and that Pillow reports.
    kept.append(bytes(16) if sequential and scans == 1 else b"\xff\xd9")
    content = b"".join(kept)
    picture = JpegImageFile(BytesIO(content))
    picture.decodermaxblock = len(content)  # in blocks of 64 KB, each thread would wait forty times for the others
    return _Opened(
        picture,
        _orientation(exif),
        b"".join(profile[number] for number in sorted(profile)),
        several_scans=progressive or scans > 1,
        scans=kept if progressive else (),
    )


def _empty_fine_scans(pieces: Iterable[bytes | memoryview]) -> bytes:
    """Return a progressive JPEG without what does not show at an eighth of its size, where a pixel is a block's mean.

    Scans of anything else take most of the time. They are emptied and not left out: of what no scan has brought, the
    decoder makes a guess, and changes the means by it. The scans of colours that are stored smaller stay, for these
    colours are decoded at a quarter.

    Args:
        pieces: the file's segments, and behind the header of each scan its data.
    """
    kept: list[bytes | memoryview] = []
    largest: set[int] = set()
    is_fine = False
    for piece in pieces:
        if is_fine:
            is_fine = False
            continue
        kept.append(piece)
        if piece[:2] == b"\xff\xc2":
            names, factors = piece[10::3], piece[11::3]
            most = max(factor & 0xF0 for factor in factors) | max(factor & 0x0F for factor in factors)
            largest = {name for name, factor in zip(names, factors, strict=False) if factor == most}
        elif piece[:2] == b"\xff\xda":  # of one component, from its second coefficient or a later one on
            is_fine = piece[4] == 1 and piece[5] in largest and piece[7] > 0
    return b"".join(kept)


def _open_png(data: bytes, max_pixels: int) -> _Opened:
    """Portable Network Graphics, third edition. Of an APNG, the picture that is not animated."""
    from PIL.PngImagePlugin import PngImageFile

    width, height, bits, colour = unpack_from(">LLBB", data, 16)
    if data[12:16] != b"IHDR":
        raise _Unreadable("is damaged: its header is missing; copy it again")
    _check_size(width, height, max_pixels)
    view = memoryview(data)
    kept: list[bytes | memoryview] = [data[:8]]
    extras = {b"tRNS": b"", b"eXIf": b"", b"iCCP": b""}  # what may be missing, or damaged without harm
    place = 8
    for _ in range(_MAX_PIECES):
        if place == len(data):  # a missing end does no harm where all pixels are there
            break
        length, name = unpack_from(">L4s", data, place)
        if name == b"IEND":
            break
        start, place = place, place + 12 + length
        if name in (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"eXIf", b"iCCP"):
            body = view[start + 8 : place - 4]
            if place > len(data):
                raise _Unreadable("is cut short; copy it again")
            intact = data[place - 4 : place] == pack(">L", zlib.crc32(body, zlib.crc32(name)))
            if name[0] & 0x20:
                extras[name] = bytes(body) if intact else b""
            elif not intact:
                raise _Unreadable(f"is damaged: the checksum of its {name.decode()} is wrong; copy it again")
            elif name != b"IHDR" or start == 8:
                kept.append(view[start:place])
    else:
        raise _too_many_pieces()
    kept.append(b"\0\0\0\0IEND\xaeB`\x82")
    picture = PngImageFile(BytesIO(b"".join(kept)))
    # Pillow compares the transparent colour with the pixels as it holds them, at 8 bits unless they are deep grey.
    key, full = extras[b"tRNS"], 2**bits - 1
    if colour == 3 and key:
        picture.info["transparency"] = key[:256]
    elif colour == 0 and len(key) >= 2:
        (level,) = unpack_from(">H", key)
        picture.info["transparency"] = level if bits == 16 else (level & full) * 255 // full
    elif colour == 2 and len(key) >= 6:
        picture.info["transparency"] = tuple((level & full) >> (bits - 8) for level in unpack_from(">HHH", key))
    return _Opened(picture, _orientation(extras[b"eXIf"]), _inflate(extras[b"iCCP"]))


def _inflate(profile: bytes) -> bytes:
    """The profile of an ``iCCP`` chunk, which is a name, 0, the method 0, and the packed profile."""
    packed = profile.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(packed, _MAX_PROFILE + 1)
    except zlib.error:
        return b""


def _open_gif(data: bytes, max_pixels: int) -> _Opened:
    """GIF89a, its first frame. Of the blocks before it, only the one that names the transparent colour is kept."""
    from PIL.GifImagePlugin import GifImageFile

    width, height, flags = unpack_from("<HHB", data, 6)
    place = colours_end = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    transparency = b""
    in_block = False
    for _ in range(_MAX_PIECES):
        if in_block:
            in_block = data[place] > 0
            place += data[place] + 1
        elif data[place] == 0x21:
            if data[place + 1] == 0xF9 and data[place + 3] & 1:
                transparency = b"\x21\xf9\4\1\0\0%c\0" % data[place + 6]
            place += 2
            in_block = True
        else:
            break
    else:
        raise _too_many_pieces()
    if data[place] != 0x2C:
        raise _Unreadable("is damaged or holds no frame; copy it again")
    left, top, frame_width, frame_height = unpack_from("<HHHH", data, place + 1)
    _check_size(frame_width, frame_height, max_pixels)
    # The screen is made to hold the frame, as browsers do.
    width, height = max(width, left + frame_width), max(height, top + frame_height)
    _check_size(width, height, max_pixels)
    if max(width, height) > 0xFFFF:
        raise _Unreadable("is damaged: its frame lies outside of its screen; copy it again")
    screen = data[:6] + pack("<HH", width, height) + data[10:colours_end]
    return _Opened(GifImageFile(BytesIO(screen + transparency + data[place:])))


def _open_webp(data: bytes, max_pixels: int) -> _Opened:
    """RFC 9649."""
    from PIL.WebPImagePlugin import WebPImageFile

    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
    elif data[12:16] == b"VP8L":
        (sides,) = unpack_from("<L", data, 21)
        width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in unpack_from("<HH", data, 26))
    _check_size(width, height, max_pixels)
    picture = WebPImageFile(BytesIO(data))
    return _Opened(picture, _orientation(picture.info.get("exif", b"")), picture.info.get("icc_profile"))


def _open_bmp(data: bytes, max_pixels: int) -> _Opened:
    """https://learn.microsoft.com/windows/win32/gdi/bitmap-storage."""
    from PIL.BmpImagePlugin import BmpImageFile

    if unpack_from("<L", data, 14)[0] >= 40 and unpack_from("<L", data, 30)[0] in (1, 2):
        # Pillow's decoder of these is written in Python: a few bytes keep it busy for minutes.
        raise _Unreadable("is a run-length coded BMP, which cannot be read here; export it as PNG", "not-a-picture")
    picture = BmpImageFile(BytesIO(data))
    return _Opened(picture)


class _Tag(IntEnum):
    """Fields of TIFF 6.0 that are read here."""

    SUBFILE_TYPE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    PLANAR = 284
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    SAMPLE_FORMAT = 339
    PROFILE = 34675


# What a decoder needs: the above, FillOrder, options of fax, Predictor, InkSet, ColorMap and those of JPEG and YCbCr.
_COUNTED: Final = frozenset(
    (256, 257, 259, 262, 266, 273, 277, 278, 284, 292, 293, 317, 322, 323, 324, 332, 512, 513, 514, 515, 531)
)
_ARRAYS: Final = frozenset((258, 279, 320, 325, 336, 338, 339, 347, 517, 518, 519, 520, 521, 529, 530, 532))

_FIELD_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BYTES: Final = (1, 2, 6, 7)
_NUMBERS: Final = {1: "B", 3: "H", 4: "L", 16: "Q"}


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a TIFF directory: where its entry and its values stand, and how many there are of which type."""

    entry: int
    kind: int
    count: int
    place: int

    @property
    def size(self) -> int:
        """The bytes of the values; 0 for a type that nobody knows."""
        return self.count * _FIELD_SIZES.get(self.kind, 0)


def _fields(tiff: bytes, order: str, start: int, big: bool = False) -> Iterator[tuple[int, _Field]]:
    """The fields of the directory at ``start``, by their tags. ``order`` is ``<`` or ``>``, ``big`` means BigTIFF."""
    head, word, step, inline = ("Q", "Q", 20, 8) if big else ("H", "L", 12, 4)
    (length,) = unpack_from(order + head, tiff, start)
    first = start + (8 if big else 2)
    for entry in range(first, first + step * min(length, _MAX_PIECES), step):
        tag, kind, count = unpack_from(f"{order}HH{word}{inline}x", tiff, entry)
        field = _Field(entry, kind, count, entry + step - inline)
        if field.size > inline:
            (place,) = unpack_from(order + word, tiff, field.place)
            field = replace(field, place=place)
        yield tag, field


def _orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, that an EXIF block names, or 1."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = unpack_from(order + "L", exif, 4)
        for tag, field in _fields(exif, order, start):
            if tag == _Tag.ORIENTATION and field.kind in _NUMBERS:
                (value,) = unpack_from(order + _NUMBERS[field.kind], exif, field.place)
                return value if value in _TURNS else 1
    except struct.error:
        pass
    return 1


def _open_tiff(data: bytes, max_pixels: int) -> _Opened:
    """TIFF 6.0 and BigTIFF. The directory is rewritten with only the fields that say how the pixels are coded."""
    from PIL.TiffImagePlugin import TiffImageFile

    order, big = ("<" if data[:2] == b"II" else ">"), data[2:3] == b"+"
    (start,) = unpack_from(order + "Q", data, 8) if big else unpack_from(order + "L", data, 4)
    fields: dict[int, _Field] = {}
    for tag, field in _fields(data, order, start, big):
        fields.setdefault(tag, field)

    def first(tag: _Tag, default: int | None = None) -> int:
        field = fields.get(tag)
        if field is not None and field.kind in _NUMBERS:
            value: int = unpack_from(order + _NUMBERS[field.kind], data, field.place)[0]
            return value
        if default is None:
            raise _Unreadable(f"is damaged: its field {tag.name} is missing; copy it again")
        return default

    if first(_Tag.SUBFILE_TYPE, 0) & 1:
        raise _Unreadable("begins with a preview only, as cameras' raw files do; export it as JPEG")
    width, height = first(_Tag.WIDTH), first(_Tag.HEIGHT)
    _check_size(width, height, max_pixels)
    planar, coded = first(_Tag.PLANAR, 1) == 2, first(_Tag.COMPRESSION, 1) != 1
    bits, sample_format = first(_Tag.BITS, 1), first(_Tag.SAMPLE_FORMAT, 1)
    if (planar and bits > 8 and not coded) or (order == ">" and sample_format != 1 and coded):
        raise _Unreadable("is a TIFF whose samples Pillow would misread; export it as an 8-bit PNG")

    # More strips than the picture has room for are decoded over and over; fewer leave a part of it black.
    if _Tag.STRIP_OFFSETS in fields:
        pieces = math.ceil(height / max(1, first(_Tag.ROWS_PER_STRIP, height)))
    else:
        across, down = width / max(1, first(_Tag.TILE_WIDTH)), height / max(1, first(_Tag.TILE_HEIGHT))
        pieces = math.ceil(across) * math.ceil(down)
    # A tile is decoded whole, however little of it shows.
    _check_size(max(1, first(_Tag.TILE_WIDTH, 1)), max(1, first(_Tag.TILE_HEIGHT, 1)), max_pixels)
    pieces *= first(_Tag.SAMPLES, 1) if planar else 1
    kept = {tag: fields[tag] for tag in sorted(_COUNTED | _ARRAYS) if tag in fields}
    for tag, field in kept.items():
        if field.kind not in _BYTES and field.count > _MAX_PIECES:
            raise _too_many_pieces()
        if field.place + field.size > len(data):
            raise _Unreadable("is cut short; copy it again")
        expected = pieces if tag in (_Tag.STRIP_OFFSETS, _Tag.TILE_OFFSETS) else 1
        if tag in _COUNTED and field.count != expected:
            raise _Unreadable(f"is damaged: field {tag} has {field.count} values instead of {expected}; copy it again")
    if sum(field.size for field in kept.values()) > len(data):
        raise _Unreadable("is damaged: its fields overlap; copy it again")

    entries = [data[field.entry : field.entry + (20 if big else 12)] for field in kept.values()]
    directory = pack(order + ("Q" if big else "H"), len(entries)) + b"".join(entries) + bytes(8 if big else 4)
    picture = TiffImageFile(BytesIO(data[:start] + directory + data[start + len(directory) :]))
    profile = fields.get(_Tag.PROFILE)
    return _Opened(
        picture,
        first(_Tag.ORIENTATION, 1),
        data[profile.place : profile.place + profile.count] if profile else None,
        2**bits - 1 if sample_format == 1 else None,
        first(_Tag.PHOTOMETRIC, 0) == 0,
    )


def _rename(data: bytes, name: bytes) -> bytes:
    """Give what has this four-letter name in a ``meta`` box of a HEIF or AVIF file a name that nobody knows."""
    boxes: list[bytes] = []
    place = 0
    for _ in range(_MAX_PIECES):
        if place == len(data):
            return b"".join(boxes)
        size, kind = unpack_from(">L4s", data, place)
        if size == 1:
            (size,) = unpack_from(">Q", data, place + 8)
        end = place + max(8, size) if size else len(data)
        box = data[place:end]
        boxes.append(box.replace(name, b"none") if kind == b"meta" else box)
        place = min(end, len(data))
    raise _too_many_pieces()


def _open_avif(data: bytes, max_pixels: int) -> _Opened:
    """AV1 Image File Format 1.1, by which EXIF does not turn a picture. What Pillow calls EXIF is the box that does."""
    from PIL.AvifImagePlugin import AvifImageFile

    picture = AvifImageFile(BytesIO(_rename(data, b"Exif")))  # where EXIF is broken, Pillow loses the picture
    return _Opened(picture, _orientation(picture.info.get("exif", b"")), picture.info.get("icc_profile"))


def _open_heic(data: bytes, max_pixels: int) -> _Opened:
    """ISO/IEC 23008-12, by which EXIF does not turn a picture. libheif turns it as the file's boxes say."""
    from pi_heif import HeifImageFile

    # Without these references nothing counts as metadata: where their type is not UTF-8, pi-heif 1.4 crashes.
    picture = HeifImageFile(BytesIO(_rename(data, b"cdsc")))
    return _Opened(picture, profile=picture.info.get("icc_profile"))


_OPENERS: Final[dict[str, Callable[[bytes, int], _Opened]]] = {
    "JPEG": _open_jpeg,
    "PNG": _open_png,
    "WebP": _open_webp,
    "GIF": _open_gif,
    "BMP": _open_bmp,
    "TIFF": _open_tiff,
    "AVIF": _open_avif,
    "HEIC": _open_heic,
}


# ------------------------------------------------------------------------------------------- pixels → upright RGB

_TURNS: Final = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation → what undoes it."""

_COLOURS: Final = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
"""Pillow's mode → the colour space that a profile for it names (ICC.1, 7.2.6)."""


_MARGIN: Final = 1.5
"""How many times the pixels needed a decoder's own scaling must leave, along each side. With 2, probabilities were as
far from those of the whole picture (0.002 on average, 0.015 at most), and 12 megapixels took a quarter longer."""


_BYTES_A_PIXEL: Final = 20
"""Memory that decoding takes at most, and what is made of the pixels until they are upright RGB."""


_room = Room(available_memory() // 2)  # made here, and not by the threads that need it first, as each would make one


def _renew_room() -> None:
    global _room
    _room = Room(available_memory() // 2)


if hasattr(os, "register_at_fork"):  # what other threads hold at that moment is never given back in the child
    os.register_at_fork(after_in_child=_renew_room)


_GAP: Final = 3
"""How many times the pixels needed are kept where a picture is reduced by a whole factor: as `resizing` does later."""


def _shrink(opened: _Opened, target: Callable[[int, int], tuple[int, int]]) -> tuple[int, int]:
    """Ask the decoder for a smaller picture, where it can give one; return the size that is wanted before any turn."""
    sideways = 5 <= opened.orientation <= 8  # a TIFF may name any number
    width, height = opened.picture.size
    wanted = target(height, width)[::-1] if sideways else target(width, height)
    opened.picture.draft(None, (math.ceil(wanted[0] * _MARGIN), math.ceil(wanted[1] * _MARGIN)))
    if opened.scans and opened.picture.decoderconfig[:1] == (8,):
        opened.picture.fp = BytesIO(_empty_fine_scans(opened.scans))
    return wanted


def _decode(opened: _Opened, wanted: tuple[int, int] | None) -> Image.Image:
    picture: Image.Image = opened.picture
    if picture.format == "TIFF":  # given its memory, Pillow does not compare the size with a limit that other code set
        picture.im = Image.new(picture.mode, picture.size).im
    picture.load()
    colours, alpha = _split(picture, opened)
    if wanted is not None and alpha is None:
        factor = min(size // (_GAP * side) for size, side in zip(colours.size, wanted, strict=True))
        if factor > 1:  # of 12 megapixels, a profile of colours takes a third of a second, and a turn a tenth
            colours = colours.reduce(factor)
    # Profiles describe colours, not transparency, and white is white in all of them: so first one, then the other.
    # A picture in L*a*b* is converted by what its numbers mean, whatever profile is embedded.
    transform = _transform(opened.profile, colours.mode) if opened.profile and picture.mode != "LAB" else None
    colours = transform.apply(colours) if transform else colours.convert("RGB")  # a copy, free of its file
    if alpha is not None:
        paper = Image.new("RGB", colours.size, "white")
        paper.paste(colours, mask=alpha)
        colours = paper
    turn = _TURNS.get(opened.orientation)
    if turn is not None:
        colours = colours.transpose(turn)
    colours.info = {}
    return colours


def _split(picture: Image.Image, opened: _Opened) -> tuple[Image.Image, Image.Image | None]:
    """The picture in mode L, RGB or CMYK, and its alpha channel, if it has one."""
    key = picture.info.get("transparency")
    if picture.mode[0] in "IF":
        samples = np.asarray(picture)
        alpha = None if key is None else Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8))
        return Image.fromarray(_to_8_bits(samples, opened.white) ^ (0xFF if opened.white_is_zero else 0)), alpha
    if picture.mode == "1":
        picture = picture.convert("L")
    elif has_unset_alpha(picture):
        picture = picture.convert("RGB")
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGB" if key is None and picture.mode == "P" else "RGBA")
    elif picture.mode in ("La", "RGBa"):
        picture = picture.convert(picture.mode.upper())
    elif picture.mode in ("L", "RGB") and key is not None:
        picture = picture.convert(picture.mode + "A")
    if picture.mode in ("LA", "RGBA"):
        return picture.convert(picture.mode[:-1]), picture.getchannel("A")
    return (picture if picture.mode in _COLOURS else picture.convert("RGB")), None


def _to_8_bits(samples: npt.NDArray[Any], white: int | None) -> npt.NDArray[np.uint8]:
    """Scale deep grey by its format's full range.

    Signed and float samples have none that is in use; of these, floats from 0 to 1 are taken as that, and others are
    scaled by the picture's own range.
    """
    if white is not None and samples.dtype.itemsize == 4:  # Pillow holds 32 unsigned bits as signed ones
        return np.asarray(samples.view(np.uint32) >> 24, np.uint8)
    if white is not None:
        table = (np.arange(65536) * 255 + white // 2) // white
        return np.asarray(table.clip(max=255).astype(np.uint8)[samples], np.uint8)
    with np.errstate(all="ignore"):  # a float may be anything
        values = np.nan_to_num(samples.astype(np.float32), copy=False)
        low, high = float(values.min()), float(values.max())
        if samples.dtype.kind == "f" and low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        values -= low
        values *= 255 / max(high - low, 1e-30)
        return np.asarray(values.round(out=values).clip(0, 255, out=values), np.uint8)


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """What converts colours of a profile to sRGB; ``None`` if they are sRGB already, or the profile is of no use.

    Kept for the next photo, for phones embed the same profile in each. A transform may be used by several threads.
    """
    from PIL import ImageCms

    if len(profile) > _MAX_PROFILE:
        return None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space != _COLOURS[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        probe = Image.fromarray(grid if mode == "RGB" else grid[..., 0])
        change = np.asarray(transform.apply(probe), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
        return transform if np.abs(change).max() > 2 else None
    except Exception:  # a broken profile is as good as none: the picture is still there
        return None
