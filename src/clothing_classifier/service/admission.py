"""How much a service takes on at once. It turns away early what it could not serve soon."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from clothing_classifier.service.problems import Problem
from clothing_classifier.service.settings import Settings

_LONGEST_ADVICE: Final = 30  # seconds


class Admission:
    """Counts what is under way: requests, their bodies' bytes, and their photos.

    Used in the event loop only, but for `computed`, which the model's threads call.

    Attributes:
        readers: requests whose bodies are read.
        requests: requests whose bodies are there, and that are computed.
        photos: photos that are decoded or computed.
        bytes: of bodies that are held.
        stopping: whether nothing new is taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seconds_a_photo = 0.02
        self.readers = 0
        self.requests = 0
        self.photos = 0
        self.bytes = 0
        self.stopping = False

    @property
    def under_way(self) -> int:
        """Requests that are read or computed."""
        return self.readers + self.requests

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Count a request while its body is read.

        Raises:
            Problem: the service is stopping, or there is no room for the request.
        """
        if self.stopping:
            raise self.stopped()
        if self.readers >= self._settings.readers:
            raise self._overloaded()
        self._require_turn()  # or the body would come in vain
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request whose body is there while it is computed, even if the service has begun to stop.

        Raises:
            Problem: there is no room for it.
        """
        self._require_turn()
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def body(self) -> Iterator[Hold]:
        """Count a body's bytes for as long as they are held."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.bytes -= hold.size

    @contextmanager
    def work(self, photos: int) -> Iterator[None]:
        """Count photos while they are decoded and computed."""
        self.photos += photos
        try:
            yield
        finally:
            self.photos -= photos

    def computed(self, photos: int, seconds: float) -> None:
        """Learn how fast the model is, for the advice when to ask again."""
        self._seconds_a_photo += 0.1 * (seconds / photos - self._seconds_a_photo)

    def require_room(self, size: int) -> None:
        """Make sure that there is room for so many bytes now, which may be long in coming.

        Raises:
            Problem: there is no room for them.
        """
        if self.bytes + size > self._settings.held_bytes:
            raise self._overloaded()

    def hold(self, size: int) -> None:
        """Take bytes.

        Raises:
            Problem: there is no room for them.
        """
        self.require_room(size)
        self.bytes += size

    def stopped(self) -> Problem:
        """Return what is said to whom a service that stops does not serve any more."""
        return Problem("stopping", "The service is stopping; ask again soon.", headers={"Retry-After": "5"})

    def _require_turn(self) -> None:
        if self.requests >= self._settings.requests or self.photos >= self._settings.photos:
            raise self._overloaded()

    @property
    def advice(self) -> int:
        """In how many seconds to ask again."""
        seconds = math.ceil(max(self.photos, self.requests) * self._seconds_a_photo)
        return min(max(seconds, 1), _LONGEST_ADVICE)

    def _overloaded(self) -> Problem:
        text = f"Too much is under way; ask again in {self.advice} s."
        return Problem("overloaded", text, headers={"Retry-After": str(self.advice)})


class Hold:
    """The bytes of one body."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size = 0

    def grow(self, size: int) -> None:
        """Count up to ``size`` bytes in all.

        Raises:
            Problem: there is no room for them.
        """
        if size > self.size:
            self._admission.hold(size - self.size)
            self.size = size
