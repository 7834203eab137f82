"""The page's files, read once."""

from __future__ import annotations

import hashlib
import importlib.resources
from dataclasses import dataclass
from typing import Final

MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Suffix → media type of the files that are served."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The pages' Content-Security-Policy."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that is served.

    Attributes:
        content: its bytes.
        media_type: its Content-Type.
        tag: its ETag.
    """

    content: bytes
    media_type: str
    tag: str


def read_pages() -> dict[str, File]:
    """Return the page's files by name."""
    folder = importlib.resources.files("clothing_classifier.service") / "page"
    files = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        media_type = MEDIA_TYPES.get("." + path.name.rpartition(".")[2])
        if media_type is not None and path.is_file():
            files[path.name] = make_file(path.read_bytes(), media_type)
    return files


def make_file(content: bytes, media_type: str) -> File:
    """Return a file of the content."""
    return File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
