"""A model file → predictions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from threading import Lock
from types import NoneType
from typing import Any, Final, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import ExifTags, Image

from clothing_classifier.card import ModelCard, ModelError, ModelFile, read_model
from clothing_classifier.execution import Choice, ExecutionError, Provider, first_line, open_session
from clothing_classifier.images import DEFAULT_LIMITS, Limits, PhotoError, has_unset_alpha, open_picture
from clothing_classifier.machine import available_cores
from clothing_classifier.resizing import resize

NOT_SURE: Final = "not sure"
"""The answer where the best class's probability is below the threshold."""

DECIMALS: Final = 6
"""Decimals of a probability. Further ones depend on how many photos were computed together, so they are not told."""

BATCH: Final = 8
"""Photos that are computed together: more are hardly faster on a CPU, and take more memory."""


@runtime_checkable
class Readable(Protocol):
    """A file that is open in binary mode, or what acts like one: ``BytesIO``, an upload."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes."""


Photo: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Image.Image | npt.NDArray[np.uint8]
)
"""A path, a file's bytes, an open file, a Pillow picture, or the pixels of an upright picture, ``uint8``: ``[H, W, 3]``
(RGB), ``[H, W, 4]`` (RGBA), ``[H, W]`` or ``[H, W, 1]`` (grey). A `memoryview` of one dimension is a file's
bytes; of more, it is pixels."""

_INPUT: Final = "pixels"
_OUTPUTS: Final = ("probabilities", "embedding", "evidence")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The classes of one photo, the most probable first.

    Attributes:
        labels: all classes, ranked.
        probabilities: theirs, calibrated, rounded to `DECIMALS`.
        threshold: below it the answer is "not sure".
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    threshold: float

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.labels[0]

    @property
    def probability(self) -> float:
        """The most probable class's probability."""
        return self.probabilities[0]

    @property
    def sure(self) -> bool:
        """Whether the probability reaches the threshold."""
        return self.probability >= self.threshold

    @property
    def answer(self) -> str:
        """The most probable class, or "not sure"."""
        return self.label if self.sure else NOT_SURE

    def top(self, k: int) -> list[tuple[str, float]]:
        """Return the ``k`` most probable classes and their probabilities; all of them where there are fewer."""
        return list(zip(self.labels[:k], self.probabilities[:k], strict=True))


@dataclass(frozen=True, slots=True)
class Output:
    """What a model computes for N photos.

    Attributes:
        probabilities: ``float32 [N, classes]``, calibrated, in the order of the card's labels.
        embedding: ``float32 [N, D]``.
        evidence: ``float32 [N, classes, h, w]``: how much each cell of the picture adds to each class. The softmax of
            its mean over the cells is the probabilities, or surer than they are where the photo is unlike all that
            taught the model.
    """

    probabilities: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]
    evidence: npt.NDArray[np.float32]


class Classifier:
    """A model that is ready to classify photos. All methods may be called from several threads at once.

    It can be sent to another process (pickled): what is sent is the path, and the model is loaded again there.

    Args:
        model: the model file's content.
        limits: how large a photo may be.
        threshold: below it the answer is "not sure"; the card's by default.
        threads: how many threads compute one batch; by default one for each core that this process may use.
        provider: which of onnxruntime's execution providers computes; see `execution`.

    Raises:
        ModelError: the model cannot be run, or not as asked, or does not take and give what its card says.
        ValueError: the threshold is not from 0 to 1, ``threads`` is below 1, or there is no such provider.
        TypeError: the threshold is no number, or ``threads`` no whole one.
    """

    def __init__(
        self,
        model: ModelFile,
        *,
        limits: Limits = DEFAULT_LIMITS,
        threshold: float | None = None,
        threads: int | None = None,
        provider: Choice = "auto",
    ) -> None:
        if not isinstance(threshold, (Real, NoneType)):
            raise TypeError(f"the threshold must be a number, not {threshold!r}")
        if not isinstance(threads, (Integral, NoneType)):
            raise TypeError(f"threads must be a whole number, not {threads!r}")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"the threshold must be from 0 to 1, not {threshold}")
        if threads is not None and threads < 1:
            raise ValueError(f"there must be at least one thread, not {threads}")
        if provider not in get_args(Choice):
            raise ValueError(f"the provider must be one of {', '.join(get_args(Choice))}, not {provider!r}")
        self.card: ModelCard = model.card
        self.path: Path = model.path
        self.limits = limits
        self.threshold: float = model.card.threshold if threshold is None else threshold
        self._loaded_with = limits, threshold, threads, provider
        self._session, chosen, refused = _open_session(model, provider, threads or available_cores())
        self.provider: Choice = chosen.name
        self.on_cores = chosen.on_cores
        """Whether the CPU's cores compute; each is then fastest with photos of its own."""
        self.refused: Mapping[Choice, str] = refused
        """Why providers are not used that ``auto`` has tried before, by name."""
        self._turn = Lock() if chosen.serial else nullcontext()

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        threshold: float | None = None,
        threads: int | None = None,
        provider: Choice = "auto",
    ) -> Classifier:
        """Load a model file; without a path, the one that ships with the package.

        The other arguments are those of the class.

        Raises:
            ModelError: the file cannot be read, is not one of this project's, is damaged, of a newer version, or
                cannot be run.
            ValueError, TypeError: as the class says.
        """
        return cls(read_model(model), limits=limits, threshold=threshold, threads=threads, provider=provider)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (self.path.absolute(), self.card, *self._loaded_with)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the model's outputs."""
        return self.card.labels

    def predict(self, photo: Photo) -> Prediction:
        """Classify one photo.

        Raises:
            PhotoError, TypeError, ValueError: as `prepare` does.
        """
        return self.predict_batch([photo])[0]

    def predict_batch(self, photos: Iterable[Photo]) -> list[Prediction]:
        """Classify photos, in their order, with the same result as one by one.

        For many, `clothing_classifier.bulk.predict_photos` is faster: it opens them on all cores at once.

        Raises:
            PhotoError: a photo cannot be read. `clothing_classifier.bulk` goes on with the others instead.
            TypeError: it is one photo and not several, or what is no photo.
            ValueError: as `prepare` does.
        """
        # One photo's path, bytes or rows of pixels can be iterated over, too.
        one = isinstance(photos, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image))
        if isinstance(photos, np.ndarray):  # of pixels, or of paths, as a table's column
            one = photos.ndim != (1 if photos.dtype.kind in "OU" else 4)
        if one or hasattr(photos, "read"):
            raise TypeError("predict_batch takes several photos, as a list; for one there is predict")
        predictions: list[Prediction] = []
        coming = iter(photos)
        while batch := [self.prepare(photo) for photo in islice(coming, BATCH)]:
            predictions += self.rank(self.compute_probabilities(np.stack(batch)))
        return predictions

    def prepare(self, photo: Photo) -> npt.NDArray[np.uint8]:
        """Return the model's input for a photo, ``uint8 [height, width, 3]`` as the card's resizing says.

        The limits are of files; of an open one, what is left to read counts.

        Raises:
            PhotoError: the photo cannot be read.
            TypeError: it is none of what a `Photo` may be.
            ValueError: an array is not ``uint8`` of one of the shapes that a `Photo` may have.
        """
        if isinstance(photo, memoryview) and photo.ndim != 1:
            photo = np.asarray(photo)
        if isinstance(photo, np.ndarray):
            shaped = photo.ndim >= 2 and photo.shape[2:] in ((), (1,), (3,), (4,))
            if photo.dtype != np.uint8 or not shaped or not photo.size:
                shapes = "[H, W, 3] (RGB), [H, W, 4] (RGBA), [H, W] or [H, W, 1] (grey)"
                raise ValueError(f"a photo's pixels are uint8 {shapes}, not {photo.dtype} {list(photo.shape)}")
            photo = Image.fromarray(photo[:, :, 0] if photo.shape[2:] == (1,) else photo)
            if photo.mode == "RGB":
                return resize(photo, self.card.resizing)
        if isinstance(photo, Image.Image):
            limits = replace(self.limits, max_bytes=sys.maxsize)
            picture = open_picture(_encode(photo), name=_name(photo), limits=limits)
        else:
            content, name = _open(photo, self.limits)
            picture = open_picture(content, name=name, limits=self.limits, target=self.card.resizing.target)
        return resize(picture, self.card.resizing)

    def run(self, pixels: npt.NDArray[np.uint8]) -> Output:
        """Compute the model's outputs.

        Args:
            pixels: prepared photos, ``uint8 [N, height, width, 3]`` with N ≥ 1. All are computed together.

        Returns:
            The three outputs.

        Raises:
            ValueError: the array's type or shape is not the model's.
            TypeError: it is no array.
            ModelError: the model fails, or gives what no model of its card can give.
        """
        output = Output(*self._compute(_OUTPUTS, pixels))
        if output.evidence.shape[:2] != output.probabilities.shape:
            raise self._misfit()
        return output

    def compute_probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute the probabilities alone, which takes a little less than `run`.

        Args:
            pixels: as `run` takes them.

        Returns:
            ``float32 [N, classes]``, the same that `run` gives.

        Raises:
            ValueError, TypeError, ModelError: as `run` does.
        """
        return self._compute(_OUTPUTS[:1], pixels)[0]

    def _compute(self, names: Sequence[str], pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """Return the outputs of these names, the probabilities first."""
        height, width = self.card.resizing.height, self.card.resizing.width
        wanted = f"uint8 [N, {height}, {width}, 3]"
        if not isinstance(pixels, np.ndarray):
            raise TypeError(f"the pixels must be an array, {wanted}, not {type(pixels).__name__}")
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (height, width, 3) or not len(pixels):
            raise ValueError(f"the model takes {wanted}, N at least 1, not {pixels.dtype} {list(pixels.shape)}")
        try:
            with self._turn:
                found: list[npt.NDArray[np.float32]] = self._session.run(names, {_INPUT: pixels})
        except Exception as error:  # onnxruntime's exceptions have no common class
            raise ModelError(f"{self.path}: fails on {len(pixels)} photos ({first_line(error)})") from error
        if found[0].shape != (len(pixels), len(self.labels)) or not np.allclose(found[0].sum(1), 1, atol=1e-3):
            raise self._misfit()  # NaN is not close either
        return found

    def _misfit(self) -> ModelError:
        return ModelError(f"{self.path}: its outputs do not fit its card; export the model again")

    def rank(self, probabilities: npt.NDArray[np.float32]) -> list[Prediction]:
        """Return the predictions that rows of probabilities, ``float32 [N, classes]``, stand for."""
        # Rounded before they are ranked and compared, so that what is printed is what was decided on.
        rounded = np.round(probabilities.astype(np.float64), DECIMALS)
        order = np.argsort(-rounded, axis=1, kind="stable")
        return [
            Prediction(tuple(self.labels[i] for i in ranks), tuple(row[ranks].tolist()), self.threshold)
            for row, ranks in zip(rounded, order, strict=True)
        ]

    def evidence(self, photo: Photo, label: str | None = None) -> npt.NDArray[np.float32]:
        """Return where in the picture the model sees a class.

        Class activation mapping (Zhou et al., 2016, https://arxiv.org/abs/1512.04150), exact for this model.

        Args:
            photo: the photo.
            label: the class; the most probable one by default.

        Returns:
            ``float32 [h, w]`` over the prepared picture, in logits: the mean over the cells is the class's logit.

        Raises:
            PhotoError: the photo cannot be read.
            ValueError: the model has no such class.
        """
        if label is not None and label not in self.labels:
            raise ValueError(f"the model has no class {label!r}; it has {', '.join(self.labels)}")
        output = self.run(self.prepare(photo)[None])
        label = label or self.rank(output.probabilities)[0].label
        evidence: npt.NDArray[np.float32] = output.evidence[0, self.labels.index(label)]
        return evidence


def _load_again(path: Path, card: ModelCard, limits: Limits, *loaded_with: Any) -> Classifier:
    """Return the classifier that was sent to this process."""
    threshold, threads, provider = loaded_with
    found = Classifier.load(path, limits=limits, threshold=threshold, threads=threads, provider=provider)
    if found.card != card:
        raise ModelError(f"{path}: is another model than the one that was sent to this process; load it again")
    return found


def _open(photo: Any, limits: Limits) -> tuple[str | os.PathLike[str] | bytes, str | None]:
    """Return what `open_picture` takes: the path or the content, and the name."""
    if isinstance(photo, (str, os.PathLike, bytes)):
        return photo, None
    if isinstance(photo, (bytearray, memoryview)):
        return bytes(photo), None
    content, name = None, getattr(photo, "name", None)
    if not isinstance(name, str):  # of a pipe it is a number
        name = "<file>"
    if isinstance(photo, Readable):
        try:
            content = photo.read(limits.max_bytes + 1)
            # A pipe gives what has come so far.
            while isinstance(content, bytes) and len(content) <= limits.max_bytes:
                if not (more := photo.read(limits.max_bytes + 1 - len(content))):
                    break
                content += more
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise PhotoError(name, f"cannot be read ({error})") from error
    if not isinstance(content, bytes):
        kinds = "a path, bytes, a file opened in binary mode, a Pillow picture or an array of pixels"
        raise TypeError(f"a photo is {kinds}, not {type(photo).__name__}")
    return content, name


def _encode(picture: Image.Image) -> bytes:
    """Return a Pillow picture as a file, so that its orientation, colours and transparency are treated as a file's."""
    orientation = Image.Exif()
    file = BytesIO()
    try:
        picture.load()  # for some formats Pillow turns the picture now, and drops the orientation
        orientation[ExifTags.Base.Orientation] = picture.getexif().get(ExifTags.Base.Orientation, 1)
        profile = picture.info.get("icc_profile")
        if picture.mode == "La":  # Pillow converts it to nothing else
            picture = picture.convert("LA")
        form = "TIFF"
        # No TIFF holds HSV, and before 13.0 Pillow does not read the YCbCr that it writes.
        if picture.mode in ("HSV", "YCbCr") or has_unset_alpha(picture):
            picture = picture.convert("RGB")
        elif picture.mode == "I;16" and picture.has_transparency_data:
            form = "PNG"  # Pillow would cut off what is above 255, and no TIFF holds a transparent colour
        elif picture.has_transparency_data:
            picture = picture.convert("RGBA")
        # Without a compression named, it is that of the file that the picture was opened from, which may not hold it.
        picture.save(file, form, compression="raw", exif=orientation, icc_profile=profile)
    except Exception as error:  # Pillow may be reading it only now, and a decoder may fail in any way
        raise PhotoError(_name(picture), f"cannot be read ({first_line(error)})") from error
    return file.getvalue()


def _name(picture: Image.Image) -> str:
    return str(getattr(picture, "filename", "") or "<picture>")


def _open_session(model: ModelFile, choice: Choice, threads: int) -> tuple[Any, Provider, Mapping[Choice, str]]:
    try:
        session, provider, refused = open_session(model.content, choice, threads)
        inputs = {value.name: (value.type, value.shape[1:]) for value in session.get_inputs()}
        outputs = {value.name: (value.type, value.shape) for value in session.get_outputs()}
    except ExecutionError as error:
        raise ModelError(f"{model.path}: {error}") from error
    except Exception as error:  # onnxruntime's exceptions have no common class
        raise ModelError(
            f"{model.path}: cannot be run by onnxruntime {onnxruntime.__version__} ({first_line(error)}); "
            "upgrade with: pip install -U onnxruntime, or export the model again"
        ) from error
    resizing, classes = model.card.resizing, len(model.card.labels)
    fits = (
        inputs == {_INPUT: ("tensor(uint8)", [resizing.height, resizing.width, 3])}
        and all(outputs.get(name, ("", []))[0] == "tensor(float)" for name in _OUTPUTS)
        and [len(outputs[name][1]) for name in _OUTPUTS] == [2, 2, 4]
        and outputs["probabilities"][1][1] == outputs["evidence"][1][1] == classes
    )
    if not fits:
        raise ModelError(f"{model.path}: its inputs and outputs do not fit its card; export the model again")
    return session, provider, refused
