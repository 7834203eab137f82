"""Features of a backbone that stands still: computed once, kept on disk, and sliced from then on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from clothing_classifier.training.networks import Classifying

_BATCH: Final = 32
_VIEWS: Final = 2
_STANDARDISATION: Final = {"features.centre": 0.0, "features.spread": 1.0}
"""Parameters of the pyramid, and their values before a head sets them, with which they change nothing."""

Features = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def compute_features(
    network: Classifying,
    pixels: Pixels,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Features, Features]:
    """Return the embeddings of photos and of their mirror images, from disk if they were computed before.

    They are kept in the user's cache folder (``$XDG_CACHE_HOME``, by default ``~/.cache``) under a key of all that
    they follow from: every pixel, every parameter of the normalisation and of the backbone, the code's version.

    Args:
        network: its head does not count.
        pixels: ``uint8 [N, H, W, 3]``.
        device: where to compute.
        progress: called with the number of photos done and of all.

    Returns:
        Two arrays ``float32 [N, D]``.
    """
    found = _recall(
        _key(network, pixels, device),
        (_VIEWS, len(pixels), network.head.in_features),
        lambda: _compute(network, pixels, device, progress),
    )
    progress(len(pixels), len(pixels))
    return found[0], found[1]


def compute_embeddings(
    embed: Callable[[Pixels], Features], size: int, model: str, pixels: Pixels, *, batch: int
) -> Features:
    """Return a model file's embeddings of photos and of their mirror images, from disk if they were computed before.

    They are kept where `compute_features` keeps its own.

    Args:
        embed: runs the model: ``uint8 [n, H, W, 3]`` → ``float32 [n, D]``.
        size: D.
        model: digest of the model file.
        pixels: ``uint8 [N, H, W, 3]``.
        batch: how many photos ``embed`` is given at once; it decides the last bits.

    Returns:
        ``float32 [2, N, D]``: the photos, and their mirror images.
    """
    digest = hashlib.sha256(f"embeddings 1 {model} {batch} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)

    def compute() -> Features:
        found = np.empty((_VIEWS, len(pixels), size), np.float32)
        for start in range(0, len(pixels), batch):
            given = pixels[start : start + batch]
            for view, inputs in enumerate((given, given[:, :, ::-1])):
                found[view, start : start + batch] = embed(np.ascontiguousarray(inputs))
        return found

    return _recall(digest.hexdigest(), (_VIEWS, len(pixels), size), compute)


def _recall(key: str, shape: tuple[int, ...], compute: Callable[[], Features]) -> Features:
    """Return what was computed under this key before, or compute it and keep it."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # whoever runs this has no home
        return compute()
    folder = cache / "clothing-classifier" / "features"
    file = folder / f"{key}.npy"
    with suppress(OSError, ValueError, EOFError):  # not there yet, or of no use: then it is computed
        kept: Features = np.load(file)
        if kept.shape == shape and kept.dtype == np.float32:
            return kept

    found = compute()
    with suppress(OSError):  # a full or read-only disk costs time later, and nothing now
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as opened:
                np.save(opened, found)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return found


def _compute(
    network: Classifying, pixels: Pixels, device: torch.device, progress: Callable[[int, int], None]
) -> Features:
    import torch

    from clothing_classifier.training.memory import keep_freed_memory

    if device.type == "cpu":
        keep_freed_memory()
    network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    found = np.empty((_VIEWS, len(pixels), network.head.in_features), np.float32)
    with torch.inference_mode():
        for start in range(0, len(pixels), _BATCH):
            batch = torch.from_numpy(pixels[start : start + _BATCH]).to(device).permute(0, 3, 1, 2).float()
            for view, inputs in enumerate((batch, batch.flip(3))):
                maps = network.embed(inputs.contiguous(memory_format=torch.channels_last))
                found[view, start : start + _BATCH] = maps.mean((2, 3)).float().cpu().numpy()
            progress(min(start + _BATCH, len(pixels)), len(pixels))
    return found


def _key(network: Classifying, pixels: Pixels, device: torch.device) -> str:
    # Regions have no parameters, and their number shows in the features'. Nor have padding, activations and the like:
    # these show in how PyTorch describes the network.
    about = f"features 3 {device.type} {network.head.in_features} {pixels.shape} {network.features}"
    digest = hashlib.sha256(about.encode())
    digest.update(np.ascontiguousarray(pixels).data)
    for name, value in network.state_dict().items():
        untouched = name in _STANDARDISATION and bool((value == _STANDARDISATION[name]).all())
        if not name.startswith("head.") and not untouched:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
