"""The card inside a model file, and the seal that shows whether the file is whole.

A model is one ONNX file. Three of its metadata entries are this project's: the *card*, JSON that says all that is
needed to use the model rightly; the *photos*, by which those that taught the model are known again; and the *seal*, the
SHA-256 of the whole file with zeros in the seal's own place. All are read from the bytes alone, before anything that
runs models sees them: a file of a newer format, a damaged one, or one that would read other files of the machine is
refused by name and not by what some runtime makes of it.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from clothing_classifier.resizing import Resizing
from clothing_classifier.taxonomy import is_class_name

FORMAT_VERSION: Final = 1
"""Format of the model files that this version writes, and the newest that it reads."""

CARD_KEY: Final = "clothing_classifier.card"
PHOTOS_KEY: Final = "clothing_classifier.photos"
DIGEST_KEY: Final = "clothing_classifier.sha256"

_BLANK: Final = b"0" * 64
_MARK: Final = 12  # 48 bits: that any of a million others is taken for one of 5,000 photos has a chance of 2 in 100,000
_LARGEST_FILE: Final = 2**31 - 1  # protobuf's limit


class ModelError(Exception):
    """A model file cannot be used. The message names the file, the reason and what to do."""


@dataclass(frozen=True)
class ModelCard:
    """What a model is, how it was made, and how far to trust it.

    Attributes:
        name: what people call the model.
        labels: the classes, in the order of the model's outputs; printable, no two alike.
        resizing: how a picture becomes the model's input.
        threshold: an answer whose probability is below it is "not sure"; 0 to 1.
        temperature: what the logits were divided by to calibrate them; the graph already does so.
        promise: what the threshold was chosen for.
        metrics: the figures the model earned, by part of the data; each with its protocol.
        data: what it learned from: digest, photos, classes, split, seed.
        training: approach, settings, command, seconds.
        weights: where the weights that training began with come from, and their licence.
        licence: of the model file itself.
        version: of the package that made it.
        commit: of the code that made it, if known.
        created: when, ISO 8601 in UTC.
        format: of the model file, see `FORMAT_VERSION`.

    Raises:
        ValueError: a field is not what it should be; the message names it.
    """

    name: str
    labels: tuple[str, ...]
    resizing: Resizing
    threshold: float
    temperature: float
    promise: Mapping[str, Any]
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    weights: Mapping[str, Any]
    licence: str
    version: str
    commit: str | None
    created: str
    format: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format != FORMAT_VERSION:
            raise ValueError(f"format must be {FORMAT_VERSION}, not {self.format!r}")
        for field in ("name", "licence", "version", "created"):
            _require(isinstance(getattr(self, field), str), field, "a text", getattr(self, field))
        _require(self.commit is None or isinstance(self.commit, str), "commit", "a text or null", self.commit)
        for field in ("promise", "metrics", "data", "training", "weights"):
            _require(isinstance(getattr(self, field), Mapping), field, "an object", getattr(self, field))
        _require(isinstance(self.resizing, Resizing), "resizing", "a Resizing", self.resizing)
        # Labels are printed to terminals and tables as they are: none may hold a line end or an escape sequence.
        labels = self.labels
        _require(
            isinstance(labels, tuple)
            and len(labels) >= 2
            and all(isinstance(label, str) and is_class_name(label) for label in labels)
            and len(set(labels)) == len(labels),
            "labels",
            "two or more printable names, no two alike",
            labels,
        )
        _require(_is_number(self.threshold) and 0 <= self.threshold <= 1, "threshold", "from 0 to 1", self.threshold)
        _require(_is_number(self.temperature) and self.temperature > 0, "temperature", "above 0", self.temperature)

    def to_json(self) -> str:
        """Return the JSON form, which `from_json` reads back; ASCII only.

        Raises:
            ValueError: a value is NaN or infinite, which JSON cannot hold.
            TypeError: a value has no JSON form.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps(values | {"resizing": self.resizing.to_dict()}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read the JSON form. Keys that it does not know are passed over.

        Raises:
            ValueError: the text is not JSON, or a field is missing or not what it should be; the message names it.
        """
        values = _read_json(text)
        missing = [field.name for field in fields(cls) if field.name not in values]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        known = {field.name: values[field.name] for field in fields(cls)}
        if isinstance(known["labels"], list):
            known["labels"] = tuple(known["labels"])
        if isinstance(known["resizing"], dict):
            known["resizing"] = Resizing.from_dict(known["resizing"])
        return cls(**known)


def mark(sha256: str) -> str:
    """Return what a model file keeps of a photo that taught it: the first hexadecimal digits of its file's SHA-256."""
    return sha256[:_MARK]


def seal(model: bytes) -> bytes:
    """Write the seal into a model file's bytes.

    Args:
        model: a serialised ONNX model whose metadata entry `DIGEST_KEY` holds 64 zeros.

    Returns:
        The same bytes with the zeros replaced by the SHA-256 of ``model``, in hexadecimal.

    Raises:
        ValueError: there is no such entry, or it holds something else.
    """
    place = _metadata(model).get(DIGEST_KEY)
    if place is None or model[place] != _BLANK:
        raise ValueError(f"the model has no metadata entry {DIGEST_KEY} of 64 zeros to seal")
    return model[: place.start] + hashlib.sha256(model).hexdigest().encode() + model[place.stop :]


def verify(model: bytes, name: str) -> None:
    """Make sure that a model file is one of this project's, and whole to the last bit.

    Args:
        model: the file's bytes.
        name: what the error calls the file.

    Raises:
        ModelError: it is not a model file, not one of this project's, or damaged.
    """
    if not model:
        raise ModelError(f"{name}: is empty; copy or download it again")
    try:
        place = _metadata(model).get(DIGEST_KEY)
    except ValueError as error:
        raise ModelError(
            f"{name}: is not an ONNX model, or a damaged one; give a model file of this project, or copy or download "
            "it again"
        ) from error
    if place is None:
        raise ModelError(
            f"{name}: is not a model file of this project (it has no seal); give the model.onnx of a `clothing train` "
            "run, or the model that ships"
        )
    digest = hashlib.sha256()
    for part in (memoryview(model)[: place.start], _BLANK, memoryview(model)[place.stop :]):
        digest.update(part)
    if digest.hexdigest().encode() != model[place]:
        raise ModelError(f"{name}: is damaged (its content does not match its seal); copy or download it again")


def read_card(model: bytes, name: str) -> ModelCard:
    """Return the card of a model file, after all checks that its bytes allow.

    Args:
        model: the file's bytes.
        name: what the error calls the file.

    Returns:
        The card. A file that passes is whole, of a format that this version reads, and complete in itself.

    Raises:
        ModelError: as `verify`; or the file is of a newer format, its card is not valid, or it keeps weights in other
            files. Such files are refused because they would make the runtime read any file that they name.
    """
    verify(model, name)
    place = _metadata(model).get(CARD_KEY)
    if place is None:
        raise ModelError(f"{name}: has no card; export the model again")
    try:
        text = model[place].decode()
        newest = _read_json(text).get("format")
        if isinstance(newest, int) and newest > FORMAT_VERSION:
            raise ModelError(
                f"{name}: was made by a newer version (its format is {newest}, this version reads {FORMAT_VERSION}); "
                "install a newer version of this package"
            )
        card = ModelCard.from_json(text)
    except ValueError as error:
        raise ModelError(f"{name}: its card is not valid: {error}; export the model again") from error
    try:
        external = _has_external_data(model)
    except ValueError as error:
        raise ModelError(f"{name}: its graph is not valid ONNX; export the model again") from error
    if external:
        raise ModelError(f"{name}: keeps weights in other files, which is refused; export the model as one file")
    return card


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that has passed all checks of its bytes.

    Attributes:
        path: where it was read from.
        content: the whole file.
        card: the card inside.
    """

    path: Path
    content: bytes
    card: ModelCard

    def read_photos(self) -> frozenset[str] | None:
        """Return the `mark` of each photo that the model or its base learned from; ``None`` if the file tells none."""
        place = _metadata(self.content).get(PHOTOS_KEY)
        if place is None:
            return None
        marks = self.content[place].decode("ascii", "replace")
        return frozenset(marks[start : start + _MARK] for start in range(0, len(marks), _MARK))


def read_model(path: str | os.PathLike[str] | None = None) -> ModelFile:
    """Read a model file and check it, without running it.

    Args:
        path: the file; ``None`` for the model that ships with the package.

    Returns:
        The file's bytes and its card.

    Raises:
        ModelError: the file cannot be read, or as `read_card`.
    """
    advice = "name a model file, such as the model.onnx of a `clothing train` run"
    if path is None:
        path = str(importlib.resources.files("clothing_classifier") / "models" / "clothing.onnx")
        advice = f"the model that ships is not there; {advice}"
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a folder, or a device that never ends
            raise ModelError(f"{path}: is not a file; {advice}")
        if path.stat().st_size > _LARGEST_FILE:
            raise ModelError(f"{path}: is larger than any ONNX file can be; {advice}")
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"{path}: cannot be read ({reason}); {advice}") from error
    return ModelFile(path, content, read_card(content, str(path)))


def _require(holds: bool, field: str, wanted: str, found: object) -> None:
    if not holds:
        raise ValueError(f"{field} must be {wanted}, not {found!r:.100}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_json(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        values = json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError(f"it must be an object, not {text!r:.40}")
    return values


# What follows reads as much of protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) as the card,
# the seal and the search for external data need. The field numbers are those of onnx.proto.

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_METADATA: Final = 14
_DATA_LOCATION: Final = 14
_NESTED: Final[Mapping[str, Mapping[int, str]]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
"""By message, the fields through which a tensor can be reached: number → message."""


def _metadata(model: bytes) -> dict[str, slice]:
    """Return where the value of each metadata entry lies; ``ValueError`` where this is no model, or a key is twice."""
    places: dict[str, slice] = {}
    for number, wire, start, end in _fields(model, 0, len(model)):
        if (number, wire) != (_METADATA, _BYTES):
            continue
        entry = {n: slice(first, last) for n, w, first, last in _fields(model, start, end) if w == _BYTES}
        key = model[entry.get(1, slice(0, 0))].decode()
        if key in places:
            raise ValueError(f"the metadata entry {key!r} is there twice")
        places[key] = entry.get(2, slice(end, end))
    return places


def _has_external_data(model: bytes) -> bool:
    """Say whether any tensor, however deep, asks for data outside of the file."""
    todo = [("ModelProto", 0, len(model))]
    while todo:
        message, start, end = todo.pop()
        for number, wire, first, last in _fields(model, start, end):
            if message == "TensorProto":
                if (number, wire) == (_DATA_LOCATION, _VARINT) and any(byte & 0x7F for byte in model[first:last]):
                    return True
            elif wire == _BYTES and number in _NESTED[message]:
                todo.append((_NESTED[message][number], first, last))
    return False


def _fields(model: bytes, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, start and end of each field's value; ``ValueError`` where this is no message."""
    while position < end:
        tag, position = _varint(model, position, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >= 2**32:
            raise ValueError("not a protobuf message")
        start = position
        if wire == _VARINT:
            _, position = _varint(model, position, end)
        elif wire == _BYTES:
            length, start = _varint(model, position, end)
            position = start + length
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError("not a protobuf message of ONNX")
        if position > end:
            raise ValueError("a protobuf message that ends early")
        yield number, wire, start, position


def _varint(model: bytes, position: int, end: int) -> tuple[int, int]:
    if position < end and model[position] < 0x80:  # most are of one byte, and a model has thousands
        return model[position], position + 1
    value = 0
    for index in range(position, min(end, position + 10)):
        value |= (model[index] & 0x7F) << 7 * (index - position)
        if model[index] < 0x80:
            return value, index + 1
    raise ValueError("a protobuf number that does not end")
