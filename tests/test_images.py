from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageDraw

from clothing_classifier import images
from clothing_classifier.images import DEFAULT_LIMITS, SUFFIXES, Limits, PhotoError, open_picture
from clothing_classifier.machine import Room
from clothing_classifier.resizing import Resizing, resize

HERE = Path(__file__).parent
HEIC = HERE / "data" / "images"
"""What `quadrants` draws, encoded once with pillow-heif, which is no dependency: its encoder is under the GPL."""

RED, GREEN, BLUE, CREAM = (200, 30, 40), (30, 160, 60), (40, 60, 200), (240, 240, 230)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


# ---------------------------------------------------------------------------------------------- making real files


def quadrants(width: int = 96, height: int = 64) -> Image.Image:
    """Red, green / blue, cream: no turn or flip of it looks like another."""
    picture = Image.new("RGB", (width, height), CREAM)
    draw = ImageDraw.Draw(picture)
    for colour, left, top in ((RED, 0, 0), (GREEN, width // 2, 0), (BLUE, 0, height // 2)):
        draw.rectangle((left, top, left + width // 2 - 1, top + height // 2 - 1), fill=colour)
    return picture


def noise(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def corners(picture: Image.Image) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quadrants, in reading order."""
    width, height = picture.size
    places = [(x, y) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
    pixels = np.asarray(picture)
    return [tuple(pixels[y, x].tolist()) for x, y in places]


def assert_corners(picture: Image.Image, *colours: tuple[int, ...], within: int = 0) -> None:
    assert np.abs(np.array(corners(picture)) - np.array(colours)).max() <= within, corners(picture)


def level(picture: Image.Image) -> int:
    """The grey level of a picture of one colour."""
    pixels = np.asarray(picture)
    assert (pixels == pixels[0, 0, 0]).all()
    return int(pixels[0, 0, 0])


def exif_with(orientation: Any, kind: int = 3, order: str = ">") -> bytes:
    value = struct.pack(order + {1: "BBH", 3: "HH"}[kind], *{1: (orientation, 0, 0), 3: (orientation, 0)}[kind])
    head = b"Exif\0\0MM\0*" if order == ">" else b"Exif\0\0II*\0"
    return head + struct.pack(order + "LHHHL", 8, 1, 0x0112, kind, 1) + value + bytes(4)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG of any bit depth; ``rows`` without filter bytes."""
    line = len(rows) // max(1, height)
    raw = b"".join(b"\0" + rows[place : place + line] for place in range(0, len(rows), line or 1))
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def with_chunk(data: bytes, *chunks: bytes) -> bytes:
    """The PNG with these chunks behind its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def tiff(
    samples: npt.NDArray[Any],
    order: str = "<",
    *,
    photometric: int = 1,
    sample_format: int = 1,
    planar: int = 1,
    compressed: bool = False,
    rows: int = 7,
    bits: int | None = None,
    fields: dict[int, tuple[int, list[int]]] | None = None,
) -> bytes:
    """A TIFF of any kind of samples, ``[H, W]`` or ``[H, W, C]``, in strips; ``fields`` are put in or replaced."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    ordered = samples.astype(samples.dtype.newbyteorder(order))  # type: ignore[arg-type]
    planes = [ordered] if planar == 1 else [ordered[..., channel] for channel in range(channels)]
    strips = [plane[top : top + rows].tobytes() for plane in planes for top in range(0, height, rows)]
    if compressed:
        strips = [zlib.compress(strip) for strip in strips]
    offsets = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    values: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits or samples.dtype.itemsize * 8] * channels),
        259: (3, [8 if compressed else 1]),
        262: (3, [photometric]),
        273: (4, offsets),
        277: (3, [channels]),
        278: (4, [rows]),
        279: (4, [len(strip) for strip in strips]),
        284: (3, [planar]),
        339: (3, [sample_format] * channels),
        **(fields or {}),
    }
    body = b"".join(strips)
    body += bytes(len(body) % 2)
    start = 8 + len(body)
    entries, tail = b"", b""
    for tag, (kind, numbers) in sorted(values.items()):
        raw = struct.pack(f"{order}{len(numbers)}{ {3: 'H', 4: 'L', 5: 'Q'}[kind] }", *numbers)
        if len(raw) > 4:
            place = start + 6 + 12 * len(values) + len(tail)
            raw, tail = struct.pack(order + "L", place), tail + raw
        entries += struct.pack(order + "HHL", tag, kind, len(numbers)) + raw.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", start)
    return head + body + struct.pack(order + "H", len(values)) + entries + bytes(4) + tail


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2, of a display or printer."""
    tags = {b"desc": b"desc\0\0\0\0\0\0\0\5test\0" + bytes(78), b"cprt": b"text\0\0\0\0none\0", **tags}
    table, body, place = struct.pack(">L", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">LL", place + len(body), len(content))
        body += content
    kind, connection = (b"prtr", b"Lab ") if space == b"CMYK" else (b"mntr", b"XYZ ")
    white = struct.pack(">lll", 63190, 65536, 54061)
    header = b"lcms\2\x20\0\0" + kind + space + connection + bytes(12) + b"acsp" + bytes(28) + white + bytes(48)
    return struct.pack(">L", 132 + 12 * len(tags) + len(body)) + header + table + body


def xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">lll", *(round(value * 65536) for value in (x, y, z)))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(value * 256))


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PRIMARIES = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))  # sRGB's, adapted to D50


def rgb_profile(*primaries: tuple[float, float, float], power: float = 2.2) -> bytes:
    tags = {b"wtpt": xyz(0.9642, 1, 0.8249)}
    for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags |= {name + b"XYZ": xyz(*primary), name + b"TRC": gamma(power)}
    return profile(b"RGB ", tags)


def swapped_profile() -> bytes:
    """A display on which red is blue and blue is red."""
    return rgb_profile(*reversed(PRIMARIES))


def grey_profile(power: float) -> bytes:
    return profile(b"GRAY", {b"wtpt": xyz(0.9642, 1, 0.8249), b"kTRC": gamma(power)})


def cmyk_profile() -> bytes:
    """A printer that prints black wherever there is any ink."""
    head = b"mft1\0\0\0\0\4\3\2\0" + struct.pack(">9l", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    ramp = bytes(range(256))
    nodes = b"\xff\x80\x80" + b"\0\x80\x80" * 15
    return profile(b"CMYK", {b"wtpt": xyz(0.9642, 1, 0.8249), b"A2B0": head + ramp * 4 + nodes + ramp * 3})


def heic(name: str) -> bytes:
    return (HEIC / f"{name}.heic").read_bytes()


def jpeg_in_parts(picture: Image.Image) -> bytes:
    """A sequential JPEG each colour of which is a scan of its own."""
    files = [encoded(colour, "JPEG", quality=90) for colour in picture.convert("YCbCr").split()]
    first, scans = files[0], [file[file.index(b"\xff\xda") + 10 : -2] for file in files]
    frame, start = first.index(b"\xff\xc0"), first.index(b"\xff\xda")
    colours = first[frame + 4 : frame + 9] + b"\3\1\x11\0\2\x11\0\3\x11\0"
    head = first[:frame] + segment(0xC0, colours) + first[frame + 13 : start]
    parts = (segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + scan for number, scan in enumerate(scans, 1))
    return head + b"".join(parts) + b"\xff\xd9"


LOSSLESS = {
    "PNG": encoded(noise(), "PNG"),
    "WebP": encoded(noise(), "WEBP", lossless=True),
    "BMP": encoded(noise(), "BMP"),
    "TIFF": encoded(noise(), "TIFF"),
    "TIFF, LZW": encoded(noise(), "TIFF", compression="tiff_lzw"),
    "TIFF, deflate": encoded(noise(), "TIFF", compression="tiff_adobe_deflate"),
    "BigTIFF": encoded(noise(), "TIFF", big_tiff=True),
}
LOSSY = {
    "JPEG": encoded(quadrants(), "JPEG"),
    "JPEG, progressive": encoded(quadrants(), "JPEG", progressive=True),
    "JPEG, restarts": encoded(quadrants(), "JPEG", restart_marker_blocks=2),
    "JPEG, in parts": jpeg_in_parts(quadrants()),
    "MPO": encoded(quadrants(), "MPO", save_all=True, append_images=[noise()]),
    "WebP": encoded(quadrants(), "WEBP"),
    "WebP, moving": encoded(quadrants(), "WEBP", save_all=True, append_images=[quadrants().rotate(180)]),
    "PNG, moving": encoded(quadrants(), "PNG", save_all=True, append_images=[quadrants().rotate(180)]),
    "GIF": encoded(quadrants(), "GIF"),
    "GIF, moving": encoded(
        quadrants(), "GIF", save_all=True, append_images=[quadrants().rotate(180)], comment=b"hello"
    ),
    "TIFF, two pages": encoded(quadrants(), "TIFF", save_all=True, append_images=[noise()]),
    "TIFF, JPEG": encoded(quadrants(), "TIFF", compression="jpeg"),
    "AVIF": encoded(quadrants(), "AVIF"),
    "AVIF, moving": encoded(quadrants(), "AVIF", save_all=True, append_images=[quadrants().rotate(180)]),
    "HEIC": heic("quadrants"),
}


# -------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("data", LOSSLESS.values(), ids=LOSSLESS)
def test_lossless_formats_give_every_pixel(data: bytes) -> None:
    picture = open_picture(data)
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), np.asarray(noise()))


@pytest.mark.parametrize("data", LOSSY.values(), ids=LOSSY)
def test_every_format_gives_its_first_picture(data: bytes) -> None:
    picture = open_picture(data)
    assert picture.mode == "RGB"
    assert picture.size == (96, 64)
    assert not picture.info
    assert not picture.getexif()
    assert_corners(picture, RED, GREEN, BLUE, CREAM, within=12)


def test_a_path_and_its_content_give_the_same_and_the_suffix_does_not_count(tmp_path: Path) -> None:
    for number, data in enumerate((*LOSSLESS.values(), *LOSSY.values())):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data)
        expected = open_picture(data).tobytes()
        assert open_picture(path).tobytes() == expected
        assert open_picture(str(path)).tobytes() == expected


def test_suffixes_are_lower_case_and_name_what_is_read() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"} <= SUFFIXES
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES)


def test_only_the_decoder_that_is_needed_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(LOSSY["JPEG"])
    code = (
        "import sys; from clothing_classifier.images import open_picture; before = set(sys.modules);"
        f"open_picture({str(path)!r}); print(*before, '|', *set(sys.modules) - before)"
    )
    before, after = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout.split("|")
    assert "ImagePlugin" not in before
    assert "PIL.JpegImagePlugin" in after
    for unwanted in ("pi_heif", "PIL.EpsImagePlugin", "PIL.AvifImagePlugin", "PIL.ImageCms"):
        assert unwanted not in before + after


# ---------------------------------------------------------------------------------------------------- orientation

STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Orientation → how the picture is stored if it is upright after what the orientation says."""


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(form: str, orientation: int) -> None:
    turn = STORED[orientation]
    stored = quadrants() if turn is None else quadrants().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_picture(encoded(stored, form, exif=exif))
    assert picture.size == (96, 64)
    assert_corners(picture, RED, GREEN, BLUE, CREAM, within=12)


def test_heic_is_turned_once() -> None:
    data = heic("quadrants_turned")
    assert b"irot" in data
    assert b"Exif" in data
    picture = open_picture(data)
    assert picture.size == (64, 96)
    assert_corners(picture, BLUE, RED, CREAM, GREEN, within=12)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08",
        b"Exif\0\0MM\0*\xff\xff\xff\xff\0\1",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\1\3\0" * 9,
        b"Exif\0\0no such thing",
        exif_with(0),
        exif_with(9),
        exif_with(65535),
    ],
)
def test_broken_exif_does_not_cost_the_picture(exif: bytes) -> None:
    plain = noise()
    expected = np.asarray(plain)
    jpeg = encoded(plain, "JPEG")
    turned = jpeg[:2] + segment(0xE1, exif) + jpeg[2:]
    assert open_picture(turned).tobytes() == open_picture(jpeg).tobytes()
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        assert np.array_equal(np.asarray(open_picture(encoded(plain, form, exif=exif, **options))), expected)
    avif = encoded(quadrants(), "AVIF", exif=exif_with(1)).replace(exif_with(1)[6:], b"x" * len(exif_with(1)[6:]))
    assert_corners(open_picture(avif), RED, GREEN, BLUE, CREAM, within=12)


def test_of_two_exif_blocks_the_first_counts() -> None:
    jpeg, blocks = encoded(quadrants(), "JPEG"), segment(0xE1, exif_with(6)) + segment(0xE1, exif_with(1))
    assert open_picture(jpeg[:2] + blocks + jpeg[2:]).size == (64, 96)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_no_tiff(orientation: int) -> None:
    """Nor does it change how far the picture is reduced."""
    pixels = np.asarray(noise(900, 300))
    plain = tiff(pixels, photometric=2)
    strange = tiff(pixels, photometric=2, fields={274: (3, [orientation])})
    for target in (None, Resizing(200, 30).target):
        assert open_picture(strange, target=target).size == open_picture(plain, target=target).size


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3])
def test_orientation_may_be_a_byte_and_of_either_order(kind: int, order: str) -> None:
    jpeg = encoded(quadrants(), "JPEG")
    assert open_picture(jpeg[:2] + segment(0xE1, exif_with(6, kind, order)) + jpeg[2:]).size == (64, 96)


# ----------------------------------------------------------------------------------------------------- transparency


def clear_corner(mode: str = "RGBA") -> Image.Image:
    """The quadrants, the last of which is invisible, over hidden black."""
    picture = quadrants()
    picture.paste(BLACK, (48, 32, 96, 64))
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (48, 32, 96, 64))
    picture = picture.convert(mode[:-1])
    picture.putalpha(alpha)
    return picture


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("WEBP", {}), ("TIFF", {}), ("AVIF", {}), ("GIF", {})],
)
def test_alpha_is_laid_over_white(form: str, options: dict[str, Any]) -> None:
    assert_corners(open_picture(encoded(clear_corner(), form, **options)), RED, GREEN, BLUE, WHITE, within=14)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_with_alpha_is_laid_over_white(form: str) -> None:
    (grey,) = {pixel[0] for pixel in corners(quadrants().convert("L").convert("RGB"))[:1]}
    picture = open_picture(encoded(clear_corner("LA"), form))
    assert corners(picture)[0] == (grey,) * 3
    assert corners(picture)[3] == WHITE


def test_half_transparent_is_half_white() -> None:
    picture = Image.new("RGBA", (4, 4), (100, 0, 200, 128))
    assert open_picture(encoded(picture, "PNG")).getpixel((0, 0)) == (177, 127, 227)


@pytest.mark.parametrize("transparency", [3, bytes([255, 255, 255, 0]), bytes([255, 255, 255, 0]) + bytes(300)])
def test_transparent_palette_entries_are_white(transparency: int | bytes) -> None:
    picture = Image.new("P", (96, 64), 3)
    picture.putpalette([value for colour in (RED, GREEN, BLUE, BLACK) for value in colour])
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 47, 31), fill=0)
    draw.rectangle((48, 0, 95, 31), fill=1)
    draw.rectangle((0, 32, 47, 63), fill=2)
    packed = bytes([255] * transparency + [0]) if isinstance(transparency, int) else transparency
    data = encoded(picture, "PNG")
    place = data.index(b"IDAT") - 4
    assert_corners(open_picture(data[:place] + chunk(b"tRNS", packed) + data[place:]), RED, GREEN, BLUE, WHITE)
    if isinstance(transparency, int):
        assert_corners(open_picture(encoded(picture, "GIF", transparency=3)), RED, GREEN, BLUE, WHITE)


@pytest.mark.parametrize(
    ("bits", "colour", "rows", "key", "expected"),
    [
        (1, 0, b"\x40", struct.pack(">H", 0), [255, 255]),
        (2, 0, b"\x40", struct.pack(">H", 1), [255, 0]),
        (4, 0, b"\x5a", struct.pack(">H", 5), [255, 170]),
        (8, 0, b"\x05\xa0", struct.pack(">H", 0x0105), [255, 160]),
        (16, 0, b"\x05\x00\x05\x01", struct.pack(">H", 0x0500), [255, 5]),
        (8, 2, b"\1\2\3\1\2\4", struct.pack(">HHH", 1, 2, 3), [255, 1]),
        (16, 2, b"\1\0\2\0\3\0\1\0\2\0\4\0", struct.pack(">HHH", 0x100, 0x200, 0x300), [255, 1]),
    ],
)
def test_a_transparent_colour_of_a_png_is_white(
    bits: int, colour: int, rows: bytes, key: bytes, expected: list[int]
) -> None:
    picture = open_picture(png(2, 1, bits, colour, rows, chunk(b"tRNS", key)))
    assert np.asarray(picture)[0, :, 0].tolist() == expected


def test_premultiplied_alpha_and_palettes_with_alpha() -> None:
    pixel = np.full((8, 8, 4), (50, 0, 100, 128), np.uint8)  # (100, 0, 200) at one half
    data = tiff(pixel, photometric=2, fields={338: (3, [1])})
    assert np.abs(np.array(open_picture(data).getpixel((0, 0))) - (177, 127, 227)).max() <= 1
    palette = Image.new("PA", (8, 8))
    palette.putpalette([*RED, *BLUE])
    palette.putdata([(1, 255), (1, 0)] * 32)
    picture = open_picture(encoded(palette, "TIFF"))
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [BLUE, WHITE]


def bitmap(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A BMP of 32 bits with a header that announces an alpha channel (BITMAPV5HEADER), as Windows writes it."""
    height, width, _ = pixels.shape
    header = struct.pack("<LllHHLLllLL", 124, width, height, 1, 32, 3, pixels.nbytes, 0, 0, 0, 0)
    header += struct.pack("<4L4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    body = np.ascontiguousarray(pixels[::-1, :, [2, 1, 0, 3]]).tobytes()
    return struct.pack("<2sLLL", b"BM", 138 + len(body), 0, 138) + header.ljust(124, b"\0") + body


@pytest.mark.parametrize("coding", [1, 2])
def test_a_run_length_coded_bmp_is_refused_as_such(coding: int) -> None:
    data = bytearray(encoded(quadrants().quantize(8), "BMP"))
    data[30] = coding
    with pytest.raises(PhotoError, match=r"is a run-length coded BMP, .* export it as PNG") as caught:
        open_picture(bytes(data))
    assert caught.value.kind == "not-a-picture"


def test_the_oldest_kind_of_bmp_has_pixels_where_others_have_a_coding() -> None:
    pixels = b"\0\0\0\0" + b"\1\0\0\0" + b"\0\0\0\0"
    data = struct.pack("<2sLLLLHHHH", b"BM", 38, 0, 26, 12, 4, 1, 1, 24) + pixels
    assert np.asarray(open_picture(data))[0, :, 1].tolist() == [0, 1, 0, 0]


def test_an_alpha_channel_that_was_never_written_is_none() -> None:
    pixels = np.dstack([np.asarray(noise()), np.zeros((30, 40), np.uint8)])
    assert np.array_equal(np.asarray(open_picture(bitmap(pixels))), np.asarray(noise()))
    assert open_picture(encoded(Image.fromarray(pixels), "PNG")).getcolors() == [(40 * 30, WHITE)]
    pixels[:15, :, 3] = 255
    found = np.asarray(open_picture(bitmap(pixels)))
    assert np.array_equal(found[:15], np.asarray(noise())[:15])
    assert (found[15:] == 255).all(), "where some of it is written, all of it counts"


# ------------------------------------------------------------------------------------------ grey, deep, CMYK, L*a*b*


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_black_and_white_grey_and_palette(form: str, mode: str) -> None:
    picture = quadrants().quantize(8) if mode == "P" else quadrants().convert(mode)
    assert np.array_equal(np.asarray(open_picture(encoded(picture, form))), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (257 * 100, 100), (257 * 100 + 200, 101)])
def test_16_bit_grey_is_scaled_by_the_full_range(value: int, expected: int) -> None:
    samples = np.full((9, 8), value, np.uint16)
    assert level(open_picture(encoded(Image.fromarray(samples), "PNG"))) == expected
    for order in "<>":
        for compressed in (False, True):
            assert level(open_picture(tiff(samples, order, compressed=compressed))) == expected
    assert level(open_picture(tiff(samples, photometric=0))) == 255 - expected


def test_grey_of_12_and_32_bits() -> None:
    twelve = np.frombuffer(b"\x80\x08\x00" * 4 * 6, np.uint8).reshape(6, 12)  # 0x800 = half of 4095
    data = tiff(twelve, bits=12, fields={256: (4, [8])})
    assert level(open_picture(data)) == 128
    assert level(open_picture(tiff(np.full((9, 8), 200 << 24, np.uint32)))) == 200


def test_floats_from_0_to_1_are_that_and_others_are_scaled_by_their_own_range() -> None:
    for order in "<>":
        assert level(open_picture(tiff(np.full((9, 8), 0.2, np.float32), order, sample_format=3))) == 51
    assert level(open_picture(tiff(np.full((9, 8), 0.2, np.float32), sample_format=3, photometric=0))) == 204
    ramp = np.linspace(-5, 20, 256, dtype=np.float32).reshape(16, 16)
    assert np.asarray(open_picture(tiff(ramp, sample_format=3)))[..., 0].ravel().tolist() == list(range(256))
    wild = np.array([[np.nan, np.inf, -np.inf, 3e38, -3e38, 0]] * 8, np.float32)
    assert open_picture(tiff(wild, sample_format=3)).size == (6, 8)
    signed = np.array([[-100, 0, 100]] * 8, np.int16)
    assert np.asarray(open_picture(tiff(signed, sample_format=2)))[0, :, 0].tolist() == [0, 128, 255]


def test_16_bit_colour() -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), np.uint16)
    for order in "<>":
        for planar, compressed in ((1, False), (1, True), (2, True)):
            data = tiff(samples, order, photometric=2, planar=planar, compressed=compressed)
            assert np.array_equal(np.asarray(open_picture(data)), samples >> 8)
    data = png(30, 20, 16, 2, samples.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(open_picture(data)), samples >> 8)


@pytest.mark.parametrize("compressed", [False, True])
def test_planes_of_colours(compressed: bool) -> None:
    samples = np.asarray(noise())
    data = tiff(samples, photometric=2, planar=2, compressed=compressed)
    assert np.array_equal(np.asarray(open_picture(data)), samples)


@pytest.mark.parametrize(
    "data",
    [
        tiff(np.zeros((9, 8, 3), np.uint16), photometric=2, planar=2),
        tiff(np.zeros((9, 8), np.float32), ">", sample_format=3, compressed=True),
    ],
)
def test_what_pillow_would_misread_is_an_error(data: bytes) -> None:
    with pytest.raises(PhotoError, match="misread; export it as an 8-bit PNG"):
        open_picture(data)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk(form: str) -> None:
    picture = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    assert np.abs(np.array(open_picture(encoded(picture, form)).getpixel((9, 9))) - (0, 255, 255)).max() <= 3
    assert level(open_picture(encoded(Image.new("CMYK", (32, 32), (0, 0, 0, 255)), form))) <= 2
    assert level(open_picture(encoded(Image.new("CMYK", (32, 32), 0), form))) >= 253


def test_ycck_jpeg() -> None:
    data = encoded(Image.new("CMYK", (32, 32), (155, 127, 127, 0)), "JPEG")  # stored inverted: (100, 128, 128, 255)
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    # Luma 100 without chroma means 155 of each ink, which is inverted again.
    as_ycck = data[:place] + b"\2" + data[place + 1 :]
    assert np.abs(np.array(open_picture(as_ycck).getpixel((9, 9))) - 155).max() <= 2


def test_lab_tiff() -> None:
    picture = Image.new("LAB", (8, 8), (128, 128, 128))
    assert np.abs(np.array(open_picture(encoded(picture, "TIFF")).getpixel((0, 0))) - 119).max() <= 2


# ------------------------------------------------------------------------------------------------- colour profiles


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_embedded_profiles_are_converted_to_srgb(form: str) -> None:
    picture = open_picture(encoded(quadrants(), form, icc_profile=swapped_profile()))
    assert_corners(picture, RED[::-1], GREEN[::-1], BLUE[::-1], CREAM[::-1], within=14)


def test_heic_with_a_profile_and_alpha() -> None:
    picture = open_picture(heic("quadrants_clear_swapped"))
    assert_corners(picture, RED[::-1], GREEN[::-1], BLUE[::-1], WHITE, within=14)


def test_a_wide_gamut_is_brought_into_srgb() -> None:
    adobe_rgb = rgb_profile((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
    picture = open_picture(encoded(Image.new("RGB", (8, 8), (100, 150, 100)), "PNG", icc_profile=adobe_rgb))
    red, green, blue = np.asarray(picture)[0, 0].tolist()
    assert red < 75
    assert 148 <= green <= 153
    assert 95 <= blue <= 101


@pytest.mark.parametrize(
    "useless",
    [
        SRGB,
        rgb_profile(*PRIMARIES, power=2.2)[:200],
        b"no profile",
        SRGB[:128],
        SRGB[:-200] + b"\xff" * 200,
        grey_profile(1.0),
        cmyk_profile(),
        b"x" * (5 * 2**20),
    ],
    ids=["sRGB", "cut", "words", "header", "damaged", "grey", "CMYK", "huge"],
)
def test_useless_profiles_change_nothing(useless: bytes) -> None:
    for form, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        picture = open_picture(encoded(noise(), form, icc_profile=useless, **options))
        if useless[-200:] != b"\xff" * 200:
            assert np.array_equal(np.asarray(picture), np.asarray(noise()))


def test_gif_frames_and_screens() -> None:
    data = encoded(quadrants(), "GIF")
    for side in (0, 10):
        small = data[:6] + struct.pack("<HH", side, side) + data[10:]
        assert_corners(open_picture(small), RED, GREEN, BLUE, CREAM, within=12)
    frame = data.index(b",", 13 + (3 << ((data[10] & 7) + 1)))
    far = data[: frame + 1] + struct.pack("<HH", 65500, 0) + data[frame + 5 :]
    with pytest.raises(PhotoError, match="its frame lies outside of its screen"):
        open_picture(far)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_what_is_far_larger_than_wanted_is_reduced_before_its_colours_are_converted(
    orientation: int, mode: str
) -> None:
    """And what is left, resized, is what the whole picture gives, within rounding; with alpha it is left whole."""
    waves = np.sin(np.arange(1200)[:, None] / 97 + np.arange(800) / 61 + np.arange(4)[:, None, None])
    pixels = (127 * waves + 128).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(pixels).convert(mode)
    icc = grey_profile(1.0) if mode == "L" else rgb_profile(*reversed(PRIMARIES))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, "PNG", icc_profile=icc, exif=exif.tobytes())
    resizing = Resizing(120, 80)
    whole, reduced = open_picture(data), open_picture(data, target=resizing.target)
    assert whole.size == ((1200, 800) if orientation == 6 else (800, 1200))
    factor = 1 if mode == "RGBA" else 5 if orientation == 6 else 3
    assert reduced.size == tuple(math.ceil(side / factor) for side in whole.size)
    difference = resize(reduced, resizing).astype(int) - resize(whole, resizing)
    assert np.abs(difference).max() <= 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_wait_for_its_parents_threads() -> None:
    data = encoded(quadrants(), "PNG")
    code = f"""
import os
from clothing_classifier import images
with images._room.take(2**60):
    child = os.fork()
    if child == 0:
        images.open_picture({data!r})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_profile_comes_first_and_then_the_alpha() -> None:
    picture = Image.new("RGBA", (8, 8), (200, 100, 0, 128))
    expected = (128, 177, 227)  # blue 200 over white at one half
    got = open_picture(encoded(picture, "PNG", icc_profile=rgb_profile(*reversed(PRIMARIES)))).getpixel((0, 0))
    assert np.abs(np.array(got) - expected).max() <= 3
    palette = Image.new("P", (8, 8))
    palette.putpalette([200, 100, 0])
    data = encoded(palette, "PNG", icc_profile=swapped_profile())
    assert np.abs(np.array(open_picture(data).getpixel((0, 0))) - (0, 100, 200)).max() <= 4


def test_grey_profiles() -> None:
    linear = encoded(Image.new("L", (8, 8), 128), "PNG", icc_profile=grey_profile(1.0))
    assert 186 <= level(open_picture(linear)) <= 190
    deep = encoded(Image.fromarray(np.full((8, 8), 128 * 257, np.uint16)), "PNG")
    deep = with_chunk(deep, chunk(b"iCCP", b"x\0\0" + zlib.compress(grey_profile(1.0))))
    assert 186 <= level(open_picture(deep)) <= 190


def test_cmyk_profiles() -> None:
    inked = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert level(open_picture(encoded(inked, "JPEG", icc_profile=cmyk_profile()))) <= 3
    assert level(open_picture(encoded(inked, "TIFF", icc_profile=cmyk_profile()))) <= 3
    assert level(open_picture(encoded(Image.new("CMYK", (16, 16), 0), "TIFF", icc_profile=cmyk_profile()))) >= 250


def test_a_long_profile_of_a_jpeg_is_put_together_in_order() -> None:
    jpeg, whole = encoded(quadrants(), "JPEG"), swapped_profile()
    parts = [whole[:100], whole[100:300], whole[300:]]
    segments = [segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 3)) + part) for n, part in enumerate(parts, 1)]
    data = jpeg[:2] + segments[2] + segments[0] + segments[1] + jpeg[2:]
    assert_corners(open_picture(data), RED[::-1], GREEN[::-1], BLUE[::-1], CREAM[::-1], within=14)


# ------------------------------------------------------------------------------------------------- what is no photo


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (bytes(5000), "holds only zeros"),
        (b"<!DOCTYPE html><html>Not found</html>", "is an HTML page, not a picture"),
        (b"\xef\xbb\xbf\r\n <HTML>", "is an HTML page, not a picture"),
        (b"<svg xmlns=''/>", "is an SVG drawing"),
        (b"%PDF-1.7\n", "is a PDF document"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "is a video or a camera's raw file"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "is a video"),
        (b"\x1aE\xdf\xa3\1\0\0\0", "is a video"),
        (b"RIFF\x24\0\0\0AVI LIST", "is an audio or video file"),
        (b"PK\3\4\x14\0", "is a ZIP archive"),
        (b"\x1f\x8b\x08\0", "is a gzip archive"),
        (b'{"error": 404}', "is a JSON document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "is a macOS resource file"),
        (b"8BPS\0\1", "is a Photoshop document"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL picture, which cannot be read here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "is a PostScript document"),
        (b"just words", "is not a picture of a known kind"),
        (b"\xff\xd8\xff", "is cut short"),
        (b"\x89PNG\r\n\x1a\n", "it ends too early"),
        (LOSSLESS["PNG"].replace(b"IHDR", b"IDAT", 1), "its header is missing"),
        (LOSSLESS["PNG"][:-14], "is cut short"),
        (b"GIF89a", "it ends too early"),
        (b"BM", "it ends too early"),
        (b"II*\0", "it ends too early"),
        (b"RIFF\4\0\0\0WEBP", "it ends too early"),
        (b"\0\0\0\x14ftypavif\0\0\0\0avif", "is damaged or cut short"),
        (b"\0\0\0\x14ftypheic\0\0\0\0heic", "is damaged or cut short"),
        (b"\0\0\0\x14ftypavif\0\0\0\0miaf", "(AVIF: "),
        (b"\0\0\0\x14ftypmif1\0\0\0\0avif", "(AVIF: "),
        (b"\0\0\0\x14ftypmsf1\0\0\0\0avis", "(AVIF: "),
        (b"\0\0\0\x14ftypmif1\0\0\0\0miaf", "(HEIC: "),
        (b"\0\0\0\x10ftypmp42\0\0\0\0avifheic", "is a video or a camera's raw file"),
        (b"junk\4\0\0\0WEBP", "is not a picture of a known kind"),
        (bytes(100) + b"words", "is not a picture of a known kind"),
        (b"GIF89a" + bytes(7), "it ends too early"),
    ],
)
def test_what_is_no_photo_is_told_as_what_it_is(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "dress.jpg"
    path.write_bytes(data)
    with pytest.raises(PhotoError) as caught:
        open_picture(path)
    assert caught.value.name == str(path)
    assert reason in caught.value.reason
    assert "here, not a picture" not in caught.value.reason
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    with pytest.raises(PhotoError, match=r"^<bytes>: "):
        open_picture(data)
    with pytest.raises(PhotoError, match=r"^upload 7: "):
        open_picture(data, name="upload 7")


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if more time of the processor is taken, however busy the machine is."""
    started = time.process_time()
    yield
    assert time.process_time() - started < seconds


@pytest.mark.timeout(60)  # reading a pipe would wait for ever
def test_folders_pipes_devices_and_missing_files(tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe.jpg", tmp_path / "loop.jpg"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    cases: list[tuple[Path | str, str]] = [
        (tmp_path, "is a folder"),
        (tmp_path / "none.jpg", "does not exist"),
        ("", "is an empty name"),
        ("https://a.example/hat.jpg", "is a web address, not a file; download the photo, and give the file"),
        ("S3://shop/hat.jpg", "is a web address"),
        ("1://hat.jpg", "does not exist"),
        (pipe, "is a pipe or a device"),
        ("/dev/zero", "is a pipe or a device"),
        (loop, "cannot be read"),
        (f"{tmp_path}/a\0b.jpg", "cannot be read"),
        (tmp_path / ("x" * 5000), "cannot be read"),
        (tmp_path / "none.jpg" / "photo.jpg", "does not exist"),
    ]
    for path, reason in cases:
        with pytest.raises(PhotoError, match=reason) as caught:
            open_picture(path)
        assert caught.value.name == os.fspath(path)
        assert caught.value.kind == ("not-a-picture" if path == tmp_path else "unreadable")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(LOSSY["JPEG"])
    path.chmod(0)
    with pytest.raises(PhotoError, match="may not be read: permission denied"):
        open_picture(path)


def test_errors_travel_between_processes_and_keep_their_cause() -> None:
    with pytest.raises(PhotoError) as caught:
        open_picture(LOSSLESS["TIFF"][:200], name="photo.tif")
    with pytest.raises(PhotoError) as limited:
        open_picture(LOSSLESS["TIFF"], limits=Limits(max_pixels=1))
    for error in (caught.value, limited.value):
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.name, copy.reason, copy.kind, str(copy)) == (error.name, error.reason, error.kind, str(error))
    assert (caught.value.kind, limited.value.kind) == ("unreadable", "too-many-pixels")
    with pytest.raises(PhotoError) as caught:
        open_picture(LOSSY["WebP"][:60])
    assert isinstance(caught.value.__cause__, Exception)
    with pytest.raises(PhotoError) as caught:
        open_picture("no/such/photo.jpg")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_camera_raw_files_are_not_taken_for_their_preview() -> None:
    data = tiff(np.zeros((9, 8, 3), np.uint8), photometric=2, fields={254: (4, [1])})
    with pytest.raises(PhotoError, match="begins with a preview only"):
        open_picture(data)
    page = tiff(np.zeros((9, 8, 3), np.uint8), photometric=2, fields={254: (4, [2])})
    assert open_picture(page).size == (8, 9)


@pytest.mark.parametrize(
    ("data", "limits", "kind"),
    [
        (b"", Limits(), "unreadable"),
        (bytes(5000), Limits(), "unreadable"),
        (LOSSY["JPEG"][:-99], Limits(), "unreadable"),
        (LOSSLESS["PNG"][:-99], Limits(), "unreadable"),
        (b"%PDF-1.7", Limits(), "not-a-picture"),
        (b"just words", Limits(), "not-a-picture"),
        (b"\xff\x0a", Limits(), "not-a-picture"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", Limits(), "not-a-picture"),
        (LOSSY["JPEG"], Limits(max_bytes=9), "too-large"),
        (LOSSY["JPEG"], Limits(max_pixels=9), "too-many-pixels"),
    ],
)
def test_errors_say_of_which_kind_they_are(data: bytes, limits: Limits, kind: str) -> None:
    with pytest.raises(PhotoError) as caught:
        open_picture(data, limits=limits)
    assert caught.value.kind == kind


@pytest.mark.parametrize(("failure", "kind"), [(MemoryError, "too-much-memory"), (ImportError, "no-decoder")])
def test_what_is_missing_here_is_of_another_kind_than_a_fault_of_the_file(
    failure: type[Exception], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: bytes, max_pixels: int) -> None:
        raise failure

    monkeypatch.setitem(images._OPENERS, "PNG", fail)
    with pytest.raises(PhotoError) as caught:
        open_picture(LOSSLESS["PNG"])
    assert caught.value.kind == kind


# ---------------------------------------------------------------------------------------------------------- limits


def test_the_limit_on_bytes(tmp_path: Path) -> None:
    data = LOSSY["JPEG"]
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    enough, short = Limits(max_bytes=len(data)), Limits(max_bytes=len(data) - 1)
    assert open_picture(path, limits=enough).tobytes() == open_picture(data, limits=enough).tobytes()
    for source in (path, data):
        reason = rf"is {len(data):,} bytes, over the limit of {len(data) - 1:,}; .* raise the limit"
        with pytest.raises(PhotoError, match=reason):
            open_picture(source, limits=short)
    with path.open("r+b") as file:
        file.truncate(2**40)
    with within(1), pytest.raises(PhotoError, match="1,099,511,627,776 bytes, over the limit"):
        open_picture(path)
    open_picture(data, limits=Limits(max_bytes=2**60))


@pytest.mark.parametrize("data", (LOSSY | LOSSLESS).values(), ids=LOSSY | LOSSLESS)
def test_the_limit_on_pixels(data: bytes) -> None:
    width, height = open_picture(data).size
    open_picture(data, limits=Limits(max_pixels=width * height))
    with pytest.raises(PhotoError, match=rf"is {width} × {height} = .* pixels, over the limit.*raise the limit"):
        open_picture(data, limits=Limits(max_pixels=width * height - 1))


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xd8" + segment(0xC0, struct.pack(">BHHB", 8, 60000, 60000, 3) + bytes(9)) + b"\xff\xd9",
        png(60000, 60000, 8, 2, b""),
        b"GIF89a" + struct.pack("<HH3B", 60000, 60000, 0, 0, 0) + b"," + struct.pack("<4HB", 0, 0, 9, 9, 0) + b"\2\0;",
        b"GIF89a" + struct.pack("<HH3B", 9, 9, 0, 0, 0) + b"," + struct.pack("<4HB", 0, 0, 60000, 60000, 0) + b"\2\0;",
        b"RIFF\x24\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (59999).to_bytes(3, "little") * 2,
        b"BM" + struct.pack("<LHHLLLLHHLLLLLL", 0, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
        tiff(np.zeros((8, 8), np.uint8), fields={256: (4, [60000]), 257: (4, [60000])}),
    ],
    ids=["JPEG", "PNG", "GIF", "GIF's frame", "WebP", "BMP", "TIFF"],
)
def test_the_limit_on_pixels_is_checked_before_anything_is_decoded(header: bytes) -> None:
    with within(1), pytest.raises(PhotoError, match="is 60,000 × 60,000 = 3,600,000,000 pixels, over the limit"):
        open_picture(header)


def test_a_picture_takes_as_much_room_as_it_needs() -> None:
    """Twenty bytes a pixel; a JPEG of several scans is held whole besides, however small it is decoded."""
    taken: list[int] = []

    class Counting(Room):
        @contextlib.contextmanager
        def take(self, amount: int) -> Iterator[None]:
            taken.append(amount)
            with super().take(amount):
                yield

    plain, progressive = (encoded(noise(800, 640), "JPEG", progressive=wanted) for wanted in (False, True))
    for data in (plain, progressive, jpeg_in_parts(noise(800, 640))):
        open_picture(data, target=Resizing(40, 50).target, room=Counting(2**30))
    open_picture(LOSSLESS["PNG"], room=Counting(2**30))
    small, whole = 20 * 100 * 80, 6 * 800 * 640
    assert taken == [small, small + whole, small + whole, 20 * 40 * 30]


@pytest.mark.parametrize("size", [(0, 8), (8, 0)])
def test_pictures_without_pixels(size: tuple[int, int]) -> None:
    width, height = size
    jpeg = b"\xff\xd8" + segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + bytes(9)) + b"\xff\xd9"
    for data in (jpeg, png(width, height, 8, 2, b"")):
        with pytest.raises(PhotoError, match=rf"has no pixels \({width} × {height}\)"):
            open_picture(data)


def test_pillows_own_global_limit_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name, data in (LOSSY | LOSSLESS).items():
        if "WebP" not in name:  # Pillow's class itself checks it
            open_picture(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(PhotoError, match="over the limit of 10"):
        open_picture(LOSSY["JPEG"], limits=Limits(max_pixels=10))


def test_limits_are_checked() -> None:
    assert Limits() == DEFAULT_LIMITS
    for values in ({"max_bytes": 0}, {"max_pixels": -1}):
        with pytest.raises(ValueError, match=r"max_\w+ must be at least 1"):
            Limits(**values)


@pytest.mark.parametrize(("name", "value"), [("max_pixels", 1e6), ("max_bytes", "9")])
def test_limits_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a whole number, not {value!r}"):
        Limits(**{name: value})


# ------------------------------------------------------------------------------------------------ damaged, hostile

EVERY = LOSSY | {f"{name}, noise": data for name, data in LOSSLESS.items()} | {"HEIC, 2": heic("quadrants_turned")}


@given(name=st.sampled_from(sorted(EVERY)), share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=300, deadline=None)
def test_a_file_that_is_cut_short_never_gives_a_part_of_its_picture(name: str, share: float) -> None:
    data = EVERY[name]
    try:
        picture = open_picture(data[: int(len(data) * share)])
    except PhotoError:
        return
    assert picture.tobytes() == open_picture(data).tobytes()


@pytest.mark.parametrize("frame", [b"\xff\xc0", b"\xff\xc1"], ids=["baseline", "extended"])
@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 4}])
def test_a_cut_jpeg_is_an_error_even_with_its_end_put_back(options: dict[str, int], frame: bytes) -> None:
    data = encoded(noise(300, 200), "JPEG", **options).replace(b"\xff\xc0", frame, 1)
    for end in range(len(data) // 3, len(data) - 40, 997):
        with pytest.raises(PhotoError, match="cut short"):
            open_picture(data[:end] + b"\xff\xd9")
        with pytest.raises(PhotoError, match="cut short"):
            open_picture(data[:end] + bytes(len(data) - end))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGB", {}), ("RGB", {"progressive": True}), ("RGB", {"subsampling": 0}), ("L", {}), ("CMYK", {})],
    ids=["plain", "progressive", "444", "grey", "cmyk"],
)
def test_a_jpeg_is_decoded_no_larger_than_needed_and_looks_the_same(
    mode: str, options: dict[str, Any], orientation: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    picture = Image.fromarray(noise).resize((1200, 900), Image.Resampling.BICUBIC).convert(mode)
    file = BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture.save(file, "JPEG", quality=92, exif=exif, **options)
    for resizing in (Resizing(192, 160), Resizing(96, 96, "squash"), Resizing(60, 400), Resizing(800, 700)):
        whole = open_picture(file.getvalue())
        small = open_picture(file.getvalue(), target=resizing.target)
        width, height = resizing.target(*whole.size)
        least = min(whole.width / width, whole.height / height)
        scale = max(s for s in (1, 2, 4, 8) if s == 1 or least >= 1.5 * s)
        assert small.size == (math.ceil(whole.width / scale), math.ceil(whole.height / scale))
        difference = np.abs(resize(small, resizing).astype(int) - resize(whole, resizing))
        assert difference.mean() < 1.5
        assert difference.max() <= 40


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"subsampling": 2, "restart_marker_blocks": 7}],
    ids=["444", "422", "420", "restarts"],
)
def test_a_progressive_jpeg_is_decoded_small_as_if_all_of_it_were(mode: str, options: dict[str, int]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 94, 3), np.uint8))
    file = BytesIO()
    picture.resize((747, 603), Image.Resampling.BICUBIC).convert(mode).save(file, "JPEG", progressive=True, **options)
    for scale in (1, 2, 4, 8):
        resizing = Resizing(603 // (2 * scale), 747 // (2 * scale), "squash")
        small = open_picture(file.getvalue(), target=resizing.target)
        assert small.size == (math.ceil(747 / scale), math.ceil(603 / scale))
        with Image.open(file) as expected:
            expected.draft(None, (747 // scale, 603 // scale))
            assert small.tobytes() == expected.convert("RGB").tobytes()


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_jpeg_that_is_cut_short_is_an_error_however_small_it_is_decoded(share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    data = file.getvalue()
    for rest in (b"", b"\xff\xd9"):
        with pytest.raises(PhotoError, match="cut short"):
            open_picture(data[: int(len(data) * share)] + rest, target=Resizing(64, 64).target)


def test_a_png_may_lack_its_end_and_what_is_broken_beside_its_pixels() -> None:
    data = LOSSLESS["PNG"]
    expected = open_picture(data).tobytes()
    assert open_picture(data[:-12]).tobytes() == expected
    for body in (
        b"eXIf" + exif_with(6)[6:],
        b"tRNS" + struct.pack(">HHH", *noise().getpixel((0, 0))),  # type: ignore[misc]
        b"iCCP" + b"x\0\0" + zlib.compress(swapped_profile()),
    ):
        whole = chunk(body[:4], body[4:])
        assert open_picture(with_chunk(data, whole)).tobytes() != expected
        assert open_picture(with_chunk(data, whole[:-1] + bytes([whole[-1] ^ 1]))).tobytes() == expected
    assert open_picture(with_chunk(data, chunk(b"iCCP", b"x\0\0no such packing"))).tobytes() == expected


def test_bytes_after_the_picture_do_no_harm() -> None:
    for name in ("JPEG", "PNG, moving", "GIF", "WebP", "BMP, noise", "TIFF, noise"):
        with_more = EVERY[name] + b"\0trailing \xff\xd8\xff\xda bytes" * 9
        assert open_picture(with_more).tobytes() == open_picture(EVERY[name]).tobytes()


@pytest.mark.parametrize(
    "idle",
    [b"\xff\xff", b"\xff\x01", b"\xff\xd8", segment(0xCC, b"\0\x10"), segment(0xE2, b"ICC_PROFILE\0")],
    ids=["fill", "TEM", "start", "arithmetic", "profile"],
)
def test_what_says_nothing_in_a_jpeg_does_no_harm(idle: bytes) -> None:
    jpeg = LOSSY["JPEG"]
    expected = open_picture(jpeg).tobytes()
    assert open_picture(jpeg[:2] + idle + jpeg[2:]).tobytes() == expected
    assert open_picture(jpeg[:-2] + b"\xff\xff" + jpeg[-2:]).tobytes() == expected


@pytest.mark.parametrize("length", [2**19 - 2, 2**19 - 1, 2**19, 2**20 - 1])
def test_the_end_of_a_long_scan_is_found_wherever_it_is(length: int) -> None:
    jpeg = LOSSY["JPEG"]
    scan = jpeg.index(b"\xff\xda")
    start = scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    long = jpeg[:-2] + bytes(length - len(jpeg[start:-2])) + jpeg[-2:]
    assert open_picture(long).tobytes() == open_picture(jpeg).tobytes()


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 4}])
def test_pictures_behind_the_first_do_no_harm(options: dict[str, Any]) -> None:
    first, second = noise(300, 200), noise(200, 300)
    data = encoded(first, "JPEG", **options)
    expected = open_picture(data).tobytes()
    assert open_picture(data + encoded(second, "JPEG", **options)).tobytes() == expected
    both = encoded(first, "MPO", save_all=True, append_images=[second], **options)
    assert b"MPF\0" in both
    assert open_picture(both).tobytes() == expected
    end = both.index(b"\xff\xd9\xff\xd8")
    with pytest.raises(PhotoError, match="cut short"):
        open_picture(both[: end - 9000] + both[end:])


@given(st.binary(max_size=300), st.sampled_from(sorted(EVERY)), st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_picture_or_a_photo_error(tail: bytes, name: str, kept: int) -> None:
    for data in (tail, EVERY[name][:kept] + tail):
        with contextlib.suppress(PhotoError):
            assert open_picture(data, limits=Limits(max_pixels=10**6)).mode == "RGB"


@given(
    name=st.sampled_from(sorted(EVERY)),
    faults=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=0, max_size=6), st.integers(0, 6))),
)
@settings(max_examples=500, deadline=None)
def test_damaged_files_give_a_picture_or_a_photo_error(name: str, faults: list[tuple[float, bytes, int]]) -> None:
    data = bytearray(EVERY[name])
    for share, new, old in faults:
        place = int(len(data) * share**2)  # more of them near the start
        data[place : place + old] = new
    try:
        picture = open_picture(bytes(data), limits=Limits(max_pixels=10**6))
    except PhotoError as error:
        if isinstance(error.__cause__, (MemoryError, Warning)):
            raise
        return
    assert picture.mode == "RGB"
    assert 0 < picture.width * picture.height <= 10**6


def bombs() -> dict[str, Callable[[], bytes]]:
    jpeg, portable, gif = encoded(noise(), "JPEG"), LOSSLESS["PNG"], encoded(noise(), "GIF")
    behind = jpeg.index(b"\xff\xdb")
    frame = gif.index(b",", 13 + (3 << ((gif[10] & 7) + 1)))
    progressive = encoded(noise(), "JPEG", progressive=True)
    last_scan = progressive.rindex(b"\xff\xda")
    many = 300_000
    rationals = b"MM\0*" + struct.pack(">LHHHLL", 8, 1, 0x011A, 5, many // 2, 26) + bytes(4) + b"\0\0\0\1" * many
    texts = [chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(10**6))) for n in range(200)]
    grey = np.zeros((8, 8), np.uint8)
    return {
        "JPEG of comments": lambda: jpeg[:behind] + segment(0xFE, b"") * many + jpeg[behind:],
        "JPEG of junk": lambda: jpeg[:behind] + bytes(many * 10) + jpeg[behind:],
        "JPEG of scans": lambda: progressive[:-2] + progressive[last_scan:-2] * 9000 + progressive[-2:],
        "JPEG of EXIF": lambda: (
            b"\xff\xd8"
            + b"".join(segment(0xE1, b"Exif\0\0" + rationals[n : n + 65000]) for n in range(0, len(rationals), 65000))
            + jpeg[behind:]
        ),
        "PNG of chunks": lambda: with_chunk(portable, chunk(b"teSt", b"") * many),
        "PNG of empty data": lambda: with_chunk(portable, chunk(b"IDAT", b"") * many),
        "PNG of text": lambda: with_chunk(portable, *texts),
        "PNG of profile": lambda: with_chunk(portable, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(10**8)))),
        "GIF of comments": lambda: gif[:frame] + b"!\xfe" + b"\1a" * many + b"\0" + gif[frame:],
        "GIF of extensions": lambda: gif[:frame] + b"!\xf1\0" * many + gif[frame:],
        "TIFF of strips": lambda: tiff(grey, fields={273: (4, [8] * many)}),
        "TIFF of layers": lambda: tiff(grey, rows=7, fields={273: (4, [8] * 90_000)}),
        "TIFF of numbers": lambda: tiff(grey, fields={282: (5, [1] * many)}),
        "TIFF of nothing": lambda: tiff(grey, fields={tag: (4, [8] * 70) for tag in range(40_000, 50_000)}),
        "BMP of ends of lines": lambda: (
            b"BM"
            + struct.pack("<LHHLLLLHHLLLLLL", 0, 0, 0, 1078, 40, 10_000, 10_000, 1, 8, 1, 0, 0, 0, 256, 0)
            + bytes(1024 + 40_000)
        ),
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_cost_neither_time_nor_memory(name: str) -> None:
    data = bombs()[name]()
    with within(2), contextlib.suppress(PhotoError):
        open_picture(data)
    tracemalloc.start()  # sees what Python allocates, which is where these go off
    try:
        with contextlib.suppress(PhotoError):
            open_picture(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20 + 5 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("strips", [True, False])
def test_a_tile_is_no_larger_than_a_picture_may_be(strips: bool) -> None:
    grey = np.zeros((16, 16), np.uint8)
    tile = {322: (4, [1 << 15]), 323: (4, [1 << 15])}
    if not strips:
        tile |= {324: (4, [8]), 325: (4, [256])}
    data = tiff(grey, rows=16, compressed=True, fields=tile)
    if not strips:
        data = data.replace(struct.pack("<HHL", 273, 4, 1), struct.pack("<HHL", 40_000, 4, 1))
    with pytest.raises(PhotoError, match="is 32,768 × 32,768 = ") as caught:
        open_picture(data)
    assert caught.value.kind == "too-many-pixels"


def test_metadata_that_crashes_the_decoder() -> None:
    data = heic("quadrants_turned").replace(b"Exif", b"\xff\xffif", 1)
    assert open_picture(data).size == (64, 96)
    # A box of 64-bit size that holds a false meta box must not hide the true one.
    false = struct.pack(">L4s", 8, b"meta")
    hiding = struct.pack(">L4sQ", 1, b"free", 16 + len(false)) + false
    start = int.from_bytes(data[:4], "big")
    with contextlib.suppress(PhotoError):
        open_picture(data[:start] + hiding + data[start:])


def test_threads_give_what_one_thread_gives() -> None:
    files = [*EVERY.values(), encoded(quadrants(), "JPEG", icc_profile=swapped_profile()), b"no photo"]

    def run(data: bytes) -> bytes | str:
        try:
            return open_picture(data).tobytes()
        except PhotoError as error:
            return str(error)

    expected = [run(data) for data in files]
    barrier = threading.Barrier(8)

    def run_all(_: int) -> list[bytes | str]:
        barrier.wait()
        return [run(data) for data in files]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(run_all, range(8)):
            assert results == expected


def test_fuzzed_photos_of_the_dataset(shared_dataset: Path, tmp_path: Path) -> None:
    photos = sorted((shared_dataset / "images").iterdir())[100::1500]
    command: list[str | Path] = [
        sys.executable,
        HERE / "fuzz_images.py",
        *photos,
        "--files",
        "2000",
        "--seed",
        "5",
        "--keep",
        tmp_path,
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    outcomes = json.loads(run.stdout)
    assert outcomes["pictures"] > 200
    assert outcomes["errors"] > 200
    assert outcomes["slowest_cpu_seconds"] < 5
    assert outcomes["grown_kib"] < 300_000
