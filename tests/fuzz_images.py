"""Feed mutated photos of every format to `open_picture`, and stop at the first that it does not handle.

    python tests/fuzz_images.py PHOTO... --seconds 300 --seed 1

Each photo given is also encoded anew in every format. The files then made have bits flipped, parts cut out, doubled,
overwritten with awkward numbers, or replaced by parts of other files, and each must give an RGB picture within the
limits or a `PhotoError`, within 30 seconds and 1 GiB, and with no warning. The last file tried is kept as `fuzzed.bin`
in the folder `--keep`, so that it is there even after a crash. Linux and macOS only, for the sake of the memory limit.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import resource
import sys
import time
import warnings
import zlib
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms

from clothing_classifier.images import Limits, PhotoError, open_picture

LIMITS = Limits(max_bytes=4 * 2**20, max_pixels=2_000_000)
SECONDS_A_FILE = 30
MEMORY = 2**30
HEIC = Path(__file__).parent / "data" / "images"

AWKWARD = [0, 1, 2, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


def encode_anew(photo: bytes) -> list[bytes]:
    """Return the photo in all formats, in small."""
    with Image.open(BytesIO(photo)) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((160, 160))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    clear = picture.copy()
    clear.putalpha(picture.getchannel("G"))
    turned = picture.rotate(90)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (picture, "JPEG", {"exif": exif, "icc_profile": profile}),
        (picture, "JPEG", {"progressive": True, "subsampling": 0}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "MPO", {"save_all": True, "append_images": [turned]}),
        (picture, "PNG", {"exif": exif, "icc_profile": profile}),
        (clear, "PNG", {}),
        (picture.quantize(64), "PNG", {"bits": 8, "transparency": 3}),
        (picture.convert("I;16"), "PNG", {}),
        (picture, "PNG", {"save_all": True, "append_images": [turned]}),
        (picture, "WEBP", {"exif": exif, "icc_profile": profile}),
        (clear, "WEBP", {"lossless": True}),
        (picture, "WEBP", {"save_all": True, "append_images": [turned]}),
        (picture.quantize(64), "GIF", {"save_all": True, "append_images": [turned.quantize(64)], "comment": b"words"}),
        (picture, "BMP", {}),
        (picture.quantize(16), "BMP", {}),
        (picture, "TIFF", {"exif": exif, "icc_profile": profile}),
        (picture, "TIFF", {"compression": "jpeg"}),
        (clear, "TIFF", {"compression": "tiff_lzw"}),
        (picture.quantize(64), "TIFF", {"compression": "packbits"}),
        (picture.convert("1"), "TIFF", {"compression": "group4"}),
        (picture.convert("F"), "TIFF", {"compression": "tiff_adobe_deflate"}),
        (picture, "AVIF", {"speed": 10, "exif": exif}),
        (clear, "AVIF", {"speed": 10}),
    ]
    files = [photo]
    for image, form, options in ways:
        file = BytesIO()
        image.save(file, form, **options)
        files.append(file.getvalue())
    return files


def mutate(data: bytes, files: list[bytes], rng: random.Random) -> bytes:
    """Return the file with 1 to 8 faults in it, most of them near its start, where headers are."""
    new = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        place = rng.randrange(min(len(new), rng.choice((64, 1024, len(new)))) or 1)
        size = rng.choice((1, 2, 4, 8, 64, 4096))
        match rng.randrange(8):
            case 0 | 1:
                if new:
                    new[min(place, len(new) - 1)] ^= 1 << rng.randrange(8)
            case 2 | 3:
                width = rng.choice((1, 2, 4))
                number = rng.choice(AWKWARD) % 256**width
                new[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
            case 4:
                del new[place : place + size]
            case 5:
                new[place:place] = new[place : place + size] * rng.choice((1, 2, 50))
            case 6:
                other = rng.choice(files)
                start = rng.randrange(len(other))
                new[place : place + size] = other[start : start + size]
            case _:
                if rng.random() < 0.3:
                    del new[rng.randrange(len(new) + 1) :]
                else:
                    new[place : place + size] = rng.randbytes(size)
    return mend_checksums(bytes(new)) if rng.random() < 0.8 else bytes(new)


def mend_checksums(data: bytes) -> bytes:
    """Return a PNG with true checksums, so that it is read beyond its first fault; another file as it is."""
    if not data.startswith(b"\x89PNG"):
        return data
    new, place = bytearray(data), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 <= len(data):
            new[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--files", type=int, default=10**9, help="stop after so many files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path())
    arguments = parser.parse_args()

    rng = random.Random(arguments.seed)
    files = [file for photo in arguments.photos for file in encode_anew(photo.read_bytes())]
    files += [path.read_bytes() for path in sorted(HEIC.glob("*.heic"))] * len(arguments.photos)
    warnings.simplefilter("error")
    for file in files:
        open_picture(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)

    outcomes: Counter[str] = Counter()
    slowest = 0.0
    end = time.monotonic() + arguments.seconds
    with (arguments.keep / "fuzzed.bin").open("wb", buffering=0) as kept:
        while outcomes.total() < arguments.files and time.monotonic() < end:
            data = mutate(rng.choice(files), files, rng)
            kept.seek(0)
            kept.write(data)
            kept.truncate()
            faulthandler.dump_traceback_later(SECONDS_A_FILE, exit=True)
            started = time.process_time()
            try:
                picture = open_picture(data, name="fuzzed", limits=LIMITS)
            except PhotoError as error:
                if isinstance(error.__cause__, (MemoryError, Warning)):
                    raise
                outcomes["errors"] += 1
            else:
                assert picture.mode == "RGB", picture.mode
                assert 0 < picture.width * picture.height <= LIMITS.max_pixels, picture.size
                assert len(picture.tobytes()) == picture.width * picture.height * 3
                outcomes["pictures"] += 1
            slowest = max(slowest, time.process_time() - started)
    faulthandler.cancel_dump_traceback_later()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({**outcomes, "slowest_cpu_seconds": round(slowest, 3), "grown_kib": grown}))


if __name__ == "__main__":
    main()
