"""What a process does that turns files into the model's input.

Decoders of pictures are large programs in C that read what strangers send. Here they can crash, hang or eat memory
without taking the service along: `decoding` starts this process, hands it one photo at a time, and ends it when a
photo takes too long. It reads on standard input and answers on standard output: a head (`HEAD`), then as many bytes as
that says.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from contextlib import suppress
from typing import Final

from clothing_classifier.images import RAISE_LIMIT, Limits, PhotoError, open_picture
from clothing_classifier.machine import Turns, available_memory
from clothing_classifier.resizing import Resizing, resize

LENGTH: Final = struct.Struct(">Q")
"""What stands before a photo's bytes: how many they are."""

HEAD: Final = struct.Struct(">?HHQ")
"""What stands before an answer's bytes: whether they are pixels, the photo's own width and height among these, and how
many bytes they are. Of an error, they are a JSON list of kind and reason."""

STOPPING: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))
"""Signals by which a process is asked to stop; SIGBREAK is Windows's, where no other program can send SIGTERM."""

READY: Final = b"+"
"""What it says when it has started."""

_SPARE_MEMORY: Final = 2**30  # for the interpreter, its libraries, and what they reserve and do not use


def main(settings: str) -> None:
    """Answer until standard input ends.

    Args:
        settings: JSON: the card's ``resizing``; the limits ``bytes`` and ``pixels``; ``share`` and ``turns`` as `Turns`
            takes them, the latter ``null`` where the system has none.
    """
    for number in STOPPING:  # sent to the whole group; the service says when it is over
        signal.signal(number, signal.SIG_IGN)
    values = json.loads(settings)
    resizing = Resizing.from_dict(values["resizing"])
    limits = Limits(max_bytes=values["bytes"], max_pixels=values["pixels"])
    _limit_memory(min(20 * limits.max_pixels + 5 * limits.max_bytes, available_memory() // 2) + _SPARE_MEMORY)
    room = None if values["turns"] is None else Turns(values["share"], values["turns"])
    # What a library prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    photos = sys.stdin.buffer
    answers.write(READY)
    answers.flush()
    while head := photos.read(LENGTH.size):
        photo = photos.read(*LENGTH.unpack(head))
        try:
            picture = open_picture(photo, limits=limits, target=resizing.target, room=room)
            pixels = resize(picture, resizing)
            answers.write(HEAD.pack(True, *resizing.target(*picture.size), pixels.nbytes) + pixels.tobytes())
        except PhotoError as error:
            trouble = json.dumps(_explain(error)).encode()
            answers.write(HEAD.pack(False, 0, 0, len(trouble)) + trouble)
        answers.flush()


def _explain(error: PhotoError) -> tuple[str, str]:
    """Return kind and reason as a client shall read them, who has no limits to change and installs nothing here."""
    if error.kind == "no-decoder":
        return "not-a-picture", "is of a kind whose decoder is not installed here; send it as JPEG"
    if error.kind == "too-much-memory":
        return "unreadable", "needs more memory than there is; make it smaller"
    return error.kind, error.reason.removesuffix(RAISE_LIMIT)


def _limit_memory(size: int) -> None:
    with suppress(ImportError, ValueError, OSError):  # Windows; or a lower limit is set already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
