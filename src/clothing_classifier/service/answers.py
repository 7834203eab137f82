"""The shapes of the API's answers, for its description. The answers themselves are written by `app`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1, description="Calibrated.")]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Label(_Shape):
    """A class and how probable it is."""

    label: str
    probability: Probability


class Evidence(_Shape):
    """Where in the photo the model sees a class."""

    label: str
    png: Annotated[
        str,
        Field(
            description="A small 8-bit greyscale PNG of the photo's proportions, in base64: 255 speaks most for the "
            "class. Stretch it over the photo.",
            json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"},
        ),
    ]


class Preview(_Shape):
    """The photo, upright and small."""

    jpeg: Annotated[
        str,
        Field(
            description="As the model has seen it, in base64.",
            json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/jpeg"},
        ),
    ]
    width: int
    height: int


class Classified(_Shape):
    """A photo with its classes."""

    name: Annotated[str, Field(description="What the request calls the file.")]
    answer: Annotated[str, Field(description="The most probable class, or `not sure`.")]
    sure: Annotated[bool, Field(description="Whether the probability reaches the model's threshold.")]
    label: Annotated[str, Field(description="The most probable class, sure or not.")]
    probability: Probability
    labels: Annotated[list[Label], Field(min_length=1, description="As many as `top` says, the most probable first.")]
    evidence: Evidence | None = None
    preview: Preview | None = None


class Fault(_Shape):
    """Why a photo has no classes."""

    kind: str
    reason: Annotated[str, Field(description="For people; it follows the photo's name.")]


class Failed(_Shape):
    """A photo that could not be classified; the others are."""

    name: str
    error: Fault


class Model(_Shape):
    """Which model has answered."""

    name: str
    version: str
    digest: Annotated[str, Field(description="SHA-256 of the model file.", pattern="^[0-9a-f]{64}$")]
    threshold: Annotated[float, Field(ge=0, le=1, description="Below it the answer is `not sure`.")]


class Predictions(_Shape):
    """One result for each photo, in their order."""

    model: Model
    results: list[Classified | Failed]


class Limits(_Shape):
    """What one request may hold."""

    bytes: Annotated[int, Field(description="Of one photo's file.")]
    pixels: Annotated[int, Field(description="Of one photo, width × height.")]
    files: Annotated[int, Field(description="In one form.")]
    request_bytes: Annotated[int, Field(description="Of one form.")]


class Description(Model):
    """The model's card, with what it is, what it was measured on and how far to trust it."""

    card: dict[str, Any]
    labels: list[str]
    limits: Limits


class State(_Shape):
    """How the service is."""

    status: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: Annotated[str, Field(description="Which error it is; it points to its description.")]
    title: str
    status: int
    detail: str
