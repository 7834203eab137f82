"""What can go wrong, with each kind's status: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

MEDIA_TYPE: Final = "application/problem+json"

PHOTO_KINDS: Final = {
    "not-a-picture": (415, "The file is not a picture of a known kind"),
    "unreadable": (422, "The picture cannot be read"),
    "too-large": (413, "The file is too large"),
    "too-many-pixels": (422, "The picture has too many pixels"),
    "timeout": (422, "The picture takes too long"),
    "not-reached": (503, "The service did not get to the picture in time"),
}
"""What can be wrong with one photo: kind → the status where the photo is the whole request, and a title."""

KINDS: Final = PHOTO_KINDS | {
    "malformed": (400, "The request cannot be read"),
    "unauthorized": (401, "The API key is missing or wrong"),
    "cross-site": (403, "Requests from other sites' pages are refused"),
    "not-found": (404, "There is nothing here"),
    "method-not-allowed": (405, "This method is not for this address"),
    "too-slow": (408, "The request's body comes too slowly"),
    "too-many-bytes": (413, "The request's body is too large"),
    "too-many-files": (400, "The request holds too many files"),
    "unsupported-encoding": (415, "The body's encoding is not supported"),
    "misdirected": (421, "The service does not go by this name"),
    "invalid": (422, "A parameter is not what it should be"),
    "no-photo": (422, "The request holds no photo"),
    "internal": (500, "The service failed"),
    "failing": (503, "The model fails"),
    "overloaded": (503, "The service has too much to do"),
    "stopping": (503, "The service is stopping"),
}
"""Kind → status and title."""


class Problem(Exception):
    """A request that is answered by an error.

    Args:
        kind: one of `KINDS`.
        detail: what is wrong with this request, and what helps, for people. Never what only the operator may know.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.status, self.title = KINDS[kind]
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the answer's body."""
        values = {"type": f"/docs#{self.kind}", "title": self.title, "status": self.status, "detail": self.detail}
        return json.dumps(values).encode()


class PhotoTrouble(Exception):
    """One photo gives no prediction.

    Args:
        kind: one of `PHOTO_KINDS`.
        reason: why; it follows the photo's name, as in `clothing_classifier.images.PhotoError`.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason


def of_status(status: int) -> Problem:
    """Return the problem that a status of the framework's own stands for."""
    kind = {404: "not-found", 405: "method-not-allowed"}.get(status, "malformed" if status < 500 else "internal")
    problem = Problem(kind, f"{KINDS[kind][1]}.")
    problem.status = status
    problem.title = problem.title if status in (400, 404, 405, 500) else HTTPStatus(status).phrase
    return problem
