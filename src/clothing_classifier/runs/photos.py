"""What a person chooses for a run, and the photos that it runs on: checked, chosen, loaded."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from clothing_classifier.dataset import Manifest, Photo, check_dataset
from clothing_classifier.dataset.labels import read_labels
from clothing_classifier.resizing import Resizing
from clothing_classifier.runs.folder import Reporter, RunError, require_apart, require_place
from clothing_classifier.training.splits import number_senders

if TYPE_CHECKING:
    import torch

    from clothing_classifier.training.approaches import Approach
    from clothing_classifier.training.features import Features
    from clothing_classifier.training.networks import Classifying, Statistics
    from clothing_classifier.training.weights import Origin

SplitChoice = Literal["random", "sender", "given"]
"""How photos are split: by chance, with no sender on two sides, or as the data's own folders say."""

_FILL: Final = (124, 116, 104)
"""What is laid around a photo to give it the input's proportions: ImageNet's mean, which pretrained networks take for
nothing at all, and of little contrast to photos in general."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person chooses for a run.

    Attributes:
        approach: an entry of the table of approaches.
        data: the dataset's folder, in any of its editions, or a table of labels.
        out: the run's folder; made if it is not there.
        split: how photos are split; ``None`` takes the data's own parts where there are some, otherwise chance.
        seed: what all random numbers come from.
        weights: ``"none"``, ``"hub"``, ``"hub@COMMIT"`` or a safetensors file.
        weights_licence: what the card shall say of the weights' licence.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        epochs: instead of the recipe's, or ``None``.
        members: likewise.
        folds: of a cross-validation.
        crossvals: folders of finished cross-validations of the same approach; all photos teach then, and what the
            model's card says of it comes from these.
        photos: where the paths in a table start from, see `read_labels`.
    """

    approach: Approach
    data: Path
    out: Path
    split: SplitChoice | None = None
    seed: int = 0
    weights: str = "hub"
    weights_licence: str | None = None
    device: str = "auto"
    epochs: int | None = None
    members: int | None = None
    folds: int = 5
    crossvals: tuple[Path, ...] = ()
    photos: Path | None = None

    def describe(self, command: str, choice: str) -> str:
        """Return the command that makes the run again; paths are shortened to their last part, machines differ.

        Args:
            command: ``train`` or ``crossval``.
            choice: the option of how photos are split, as it was decided.
        """
        words = ["clothing", command, self.approach.entry or self.approach.name, "--data", self.data.resolve().name]
        words += ["--out", self.out.resolve().name]
        if self.photos is not None:
            words += ["--photos", self.photos.resolve().name]
        words += [*choice.split(), "--seed", str(self.seed)]
        if self.approach.backbone is not None:
            if self.approach.entry is not None:
                words += ["--backbone", self.approach.backbone]
            words += [
                "--weights",
                self.weights if self.weights.partition("@")[0] in ("hub", "none") else Path(self.weights).name,
            ]
            if self.weights_licence is not None:
                words += ["--weights-licence", self.weights_licence]
        if self.epochs is not None:
            words += ["--epochs", str(self.epochs)]
        if self.members is not None:
            words += ["--members", str(self.members)]
        for folder in self.crossvals:
            words += ["--crossval", folder.resolve().name]
        return shlex.join(words)


def settle(settings: Settings) -> Approach:
    """Return the approach with what the settings change in it, once it is sure that its network can be had.

    A network without pretrained weights has no blocks that could stay as they are, and none that need to learn slower.

    Raises:
        ValueError: there is nothing that could learn, or timm has no such backbone.
        WeightsError: as `load_weights` says.
    """
    approach = settings.approach
    recipe = approach.recipe
    if settings.epochs is not None:
        recipe = replace(recipe, epochs=settings.epochs)
    if settings.members is not None:
        recipe = replace(recipe, members=settings.members)
    if recipe.epochs == 0 and approach.backbone is None:
        raise ValueError(f"{approach.name} has no pretrained backbone, so it learns nothing in 0 epochs; give it some")
    if recipe.epochs == 0 and settings.weights == "none":
        raise ValueError("a frozen backbone needs weights; choose --weights hub or a file")
    if approach.backbone is not None and settings.weights == "none":
        recipe = replace(recipe, head_rate=1.0, block_decay=1.0, still=0)
    approach = replace(approach, recipe=recipe)
    # How many classes there are only the photos tell, but nobody shall wait for these to learn that a name is wrong.
    start(approach, settings, 2, None)
    return approach


@dataclass(frozen=True, slots=True)
class Selection:
    """The photos of a run, in the manifest's order.

    Attributes:
        manifest: of the whole dataset.
        chosen: which of the manifest's kept photos the approach is about, ``bool [M]``.
        photos: those, N of them.
        labels: their classes, by name.
        truth: class numbers, ``int64 [N]``.
        groups: number of each photo's sender; a photo without one is a sender of its own. ``int64 [N]``.
        resizing: how they are resized.
    """

    manifest: Manifest
    chosen: npt.NDArray[np.bool_]
    photos: Sequence[Photo]
    labels: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    resizing: Resizing


@dataclass(frozen=True, slots=True)
class Loaded(Selection):
    """The same with their pixels.

    Attributes:
        pixels: ``uint8 [N, H, W, 3]``.
    """

    pixels: npt.NDArray[np.uint8]


def select(settings: Settings, approach: Approach, reporter: Reporter) -> Selection:
    """Check the dataset, and choose the approach's photos.

    Raises:
        RunError: the run's folder cannot be made, or lies among the classes' folders.
        DatasetError: as its room says.
    """
    reporter.stage("Checking the photos")
    require_place(settings.out)
    findings = check_dataset(read_labels(settings.data, settings.photos), progress=reporter.progress)
    findings.require_classes()
    manifest = findings.manifest
    require_apart(settings.out, manifest)
    if guessed := findings.listing.guessed:
        reporter.note(f"{guessed} labels of the table may be a model's own, uncorrected; they count as right.")
    counts = Counter(photo.label or "" for photo in manifest.kept)
    frequent = sorted(manifest.classes, key=lambda label: (-counts[label], label))
    labels = tuple(sorted(frequent[: approach.top]))
    chosen = np.array([photo.label in labels for photo in manifest.kept], bool)
    photos = [photo for photo in manifest.kept if photo.label in labels]
    truth = np.array([labels.index(photo.label or "") for photo in photos], np.int64)
    groups = number_senders([photo.sender for photo in photos])
    resizing = Resizing(approach.height, approach.width, "pad", _FILL)
    return Selection(manifest, chosen, photos, labels, truth, groups, resizing)


def load(selection: Selection, reporter: Reporter) -> Loaded:
    """Load the photos' pixels: minutes, before which all shall be asked that can be.

    Raises:
        PhotoError: as its room says.
    """
    from clothing_classifier.training.pixels import load_pixels

    reporter.stage("Loading the photos")
    known = {field.name: getattr(selection, field.name) for field in fields(selection)}
    pixels = load_pixels(selection.manifest.root, selection.photos, selection.resizing, progress=reporter.progress)
    return Loaded(**known, pixels=pixels)


def require_whole_parts(data: Path, photos: Sequence[Photo]) -> None:
    """Make sure that, where photos come in parts, none is in no part.

    Raises:
        RunError: some are.
    """
    without = [photo.path for photo in photos if not photo.part]
    if 0 < len(without) < len(photos):
        raise RunError(
            f"{data}: {len(without)} of {len(photos)} photos are in no part, such as {without[0]}; put each in one, or "
            "say --split random or --split sender, and the parts do not count"
        )


def choose_statistics(approach: Approach, pixels: npt.NDArray[np.uint8]) -> Statistics:
    """Return what the network normalises with: what its backbone learned with, or these photos' own.

    Args:
        approach: what is trained.
        pixels: what teaches it, ``uint8 [N, H, W, 3]``.
    """
    from clothing_classifier.training.pixels import measure_statistics

    return pretrained_statistics(approach) or measure_statistics(pixels)


def pretrained_statistics(approach: Approach) -> Statistics | None:
    """Return what the approach's backbone learned with, as timm says; ``None`` for a network that starts afresh."""
    from clothing_classifier.training.approaches import IMAGENET_MEAN, IMAGENET_STD
    from clothing_classifier.training.networks import Statistics

    if approach.backbone is None:
        return None
    import timm

    known = timm.get_pretrained_cfg(approach.backbone)
    if known is None:  # an architecture of which timm has no weights
        return Statistics(IMAGENET_MEAN, IMAGENET_STD)
    (red, green, blue), (red_std, green_std, blue_std) = (
        [round(255 * value, 3) for value in values] for values in (known.mean, known.std)
    )
    return Statistics((red, green, blue), (red_std, green_std, blue_std))


def start(
    approach: Approach, settings: Settings, classes: int, statistics: Statistics | None
) -> tuple[Classifying, Origin]:
    """Build the approach's network with the weights that it starts from.

    Args:
        approach: what is built.
        settings: where the weights come from, and the seed.
        classes: how many there are.
        statistics: what it normalises with; ``None`` where that is not known yet, and put in later.

    Raises:
        WeightsError, ValueError: as their rooms say.
    """
    import torch

    from clothing_classifier.training.approaches import IMAGENET_MEAN, IMAGENET_STD, build
    from clothing_classifier.training.networks import Pyramid, Statistics
    from clothing_classifier.training.weights import load_weights

    torch.manual_seed(settings.seed)
    network = build(approach, classes, statistics or Statistics(IMAGENET_MEAN, IMAGENET_STD))
    features = network.features
    backbone = features.backbone if isinstance(features, Pyramid) else features
    return network, load_weights(backbone, approach.backbone, settings.weights, settings.weights_licence)


def look(
    network: Classifying, origin: Origin, pixels: npt.NDArray[np.uint8], device: torch.device, reporter: Reporter
) -> tuple[Features, Features] | None:
    """Return the photos' features as the pretrained backbone sees them; ``None`` if it is not pretrained."""
    from clothing_classifier.training.features import compute_features

    if origin.source == "none":
        return None
    reporter.stage("Computing features")
    return compute_features(network, pixels, device, progress=reporter.progress)


def record(approach: Approach, selection: Selection, origin: Origin, statistics: Statistics | None) -> dict[str, Any]:
    """Return what the configurations of all kinds of runs hold."""
    return {
        "approach": approach.name,
        "summary": approach.summary,
        "backbone": approach.backbone,
        # What no recipe ever had is still said, so that runs from when one could have had it go on and are joined.
        "recipe": asdict(approach.recipe) | {"balance": 0.0},
        "resizing": selection.resizing.to_dict(),
        "mean": list(statistics.mean) if statistics else None,
        "std": list(statistics.std) if statistics else None,
        "labels": list(selection.labels),
        "weights": origin.to_dict(),
        "data": {"digest": selection.manifest.digest, "edition": selection.manifest.edition},
        # Left out where it is not so: the configurations of runs from before there was a choice stay the same.
        **({"sides": True} if approach.sides else {}),
    }
