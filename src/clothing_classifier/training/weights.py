"""Where a backbone's parameters come from: the hub, a file, or nowhere. The choice is always recorded."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn


class WeightsError(Exception):
    """The weights cannot be had or do not fit; the message names them, the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where parameters came from, as the model's card will tell.

    Attributes:
        source: ``"none"``, ``"hub: NAME"`` or ``"file: NAME"``.
        sha256: digest of the file, or ``None``.
        fresh: names of the parameters that the source lacks, which start from random values.
        licence: what is known of the licence.
    """

    source: str
    licence: str
    sha256: str | None = None
    fresh: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"fresh": list(self.fresh)}


NO_WEIGHTS = Origin(source="none", licence="not applicable: trained from random values")


def load_weights(features: nn.Module, backbone: str | None, choice: str, licence: str | None = None) -> Origin:
    """Load a backbone's parameters in place.

    Args:
        features: the backbone, as timm builds it without a head.
        backbone: timm's name of it; ``None`` for a network that has no pretrained form.
        choice: ``"none"``, ``"hub"`` (timm downloads them and keeps them in its cache) or the path of a safetensors
            file with timm's parameter names.
        licence: what the card shall say of the weights' licence; the default says that the user chose them.

    Returns:
        Where the parameters came from.

    Raises:
        WeightsError: the file is missing, damaged or of another architecture, or the hub gives nothing.
    """
    if choice == "none" or backbone is None:
        if backbone is None and choice not in ("none", "hub"):
            raise WeightsError(f"{choice}: this approach trains from nothing and takes no weights; use --weights none")
        return NO_WEIGHTS
    if choice == "hub":
        return _load_from_hub(features, backbone, licence)
    return _load_from_file(features, backbone, Path(choice), licence)


def _load_from_hub(features: nn.Module, backbone: str, licence: str | None) -> Origin:
    import timm

    try:
        pretrained = timm.create_model(backbone, pretrained=True, num_classes=0, global_pool="")
    except Exception as error:
        raise WeightsError(
            f"{backbone}: the hub gave no weights ({type(error).__name__}: {error}); check the connection, "
            "or give a safetensors file with --weights FILE"
        ) from error
    features.load_state_dict(pretrained.state_dict())
    named: dict[str, Any] = vars(pretrained).get("pretrained_cfg") or {}
    return Origin(f"hub: {named.get('hf_hub_id') or backbone}", licence or str(named.get("license") or "see the hub"))


def _load_from_file(features: nn.Module, backbone: str, path: Path, licence: str | None) -> Origin:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        given = load(content)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); name a safetensors file") from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a safetensors file, or damaged ({error}); download it again") from error
    wanted = features.state_dict()
    common = sorted(wanted.keys() & given.keys())
    if not any(wanted[name].ndim > 1 for name in common):
        raise WeightsError(f"{path}: holds no parameter of {backbone}; give weights of that architecture")
    for name in common:
        if wanted[name].shape != given[name].shape:
            raise WeightsError(
                f"{path}: {name} has the shape {tuple(given[name].shape)}, but {backbone} needs "
                f"{tuple(wanted[name].shape)}; give weights of that architecture"
            )
    features.load_state_dict({name: given[name] for name in common}, strict=False)
    # Batch norm's counter of batches has no effect on the function and is often left out.
    fresh = tuple(name for name in wanted if name not in given and not name.endswith("num_batches_tracked"))
    return Origin(
        source=f"file: {path.name}",
        licence=licence or "not stated; see where the file came from",
        sha256=hashlib.sha256(content).hexdigest(),
        fresh=fresh,
    )
