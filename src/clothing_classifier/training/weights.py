"""Where a backbone's parameters come from: the hub, a file, or nowhere. The choice is always recorded.

The hub's file and a file at hand take one way: safetensors only, names compared with timm's, shapes checked, and what
is missing named. Pickles are never loaded, because loading one can run any code.

The hub is reached as ``huggingface_hub`` is told to reach it: ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``,
``HF_HUB_OFFLINE`` (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from clothing_classifier.dataset.download import TRY_AGAIN

_FILE: Final = "model.safetensors"
_PAUSES: Final = (1.0, 4.0)
_OTHERWISE: Final = "or give a safetensors file with --weights FILE"


class WeightsError(Exception):
    """The weights cannot be had or do not fit; the message names them, the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where parameters came from, as the model's card will tell.

    Attributes:
        source: ``"none"``, ``"hub: REPOSITORY@COMMIT"`` or ``"file: NAME"``.
        licence: what is known of the licence.
        sha256: digest of the file, or ``None``.
        fresh: names of the parameters that the source lacks, which start from random values.
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
        features: the backbone, as timm builds it without a head; with or without ``features_only``.
        backbone: timm's name of it; ``None`` for a network that has no pretrained form.
        choice: ``"none"``, ``"hub"`` (downloaded once, then kept in the hub's cache), ``"hub@COMMIT"`` (that commit
            of the hub's repository) or the path of a safetensors file with timm's parameter names.
        licence: what the card shall say of the weights' licence; the default is what the hub says, and of a file
            that nothing is known.

    Returns:
        Where the parameters came from.

    Raises:
        WeightsError: the file is missing, damaged or of another architecture, or the hub gives nothing.
    """
    from_hub = choice.partition("@")[0] == "hub"
    if backbone is None and choice != "none" and not from_hub:
        raise WeightsError(f"{choice}: this approach trains from nothing and takes no weights; use --weights none")
    if backbone is None or choice == "none":
        return NO_WEIGHTS
    if from_hub:
        return _load_from_hub(features, backbone, choice.partition("@")[2], licence)
    path = Path(choice)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); name a safetensors file") from error
    return Origin(
        source=f"file: {path.name}",
        licence=licence or "not stated; see where the file came from",
        sha256=hashlib.sha256(content).hexdigest(),
        fresh=_fill(features, backbone, content, str(path)),
    )


def _load_from_hub(features: nn.Module, backbone: str, revision: str, licence: str | None) -> Origin:
    import timm

    settings = timm.models.get_pretrained_cfg(backbone) if timm.is_model(backbone) else None
    repository, _, pinned = (getattr(settings, "hf_hub_id", None) or "").partition("@")
    file = getattr(settings, "hf_hub_filename", None) or _FILE
    if not repository or not file.endswith(".safetensors"):
        raise WeightsError(
            f"{backbone}: timm names no safetensors file on the hub for it; choose another backbone, {_OTHERWISE}"
        )
    download = _Download(backbone, repository, file, revision or pinned or None)
    commit, content = download.fetch()
    fresh = _fill(features, backbone, content, download.name, whole=True)
    return Origin(
        source=f"hub: {repository}@{commit}",
        licence=licence
        or _licence_of(repository, commit)
        or getattr(settings, "license", None)
        or "not stated; see the hub",
        sha256=hashlib.sha256(content).hexdigest(),
        fresh=fresh,
    )


# ----------------------------------------------------------------------------------------------------- parameters


def _fill(features: nn.Module, backbone: str, content: bytes, origin: str, *, whole: bool = False) -> tuple[str, ...]:
    """Copy a safetensors file's parameters into the backbone, all or none.

    Parameters of the classifier, and others that the backbone has no place for, are left out.

    Args:
        features: the backbone.
        backbone: timm's name of it.
        content: of the file.
        origin: what the file is called in messages.
        whole: whether a file that lacks a matrix or a kernel is refused; vectors alone start well from their defaults.

    Returns:
        The names of the parameters that the file lacks.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        given = load(content)
    except SafetensorError as error:
        raise WeightsError(
            f"{origin}: not a safetensors file, or damaged ({error}); download it again. Pickles (.pth, .pt, .bin) "
            "are not loaded, because they can run any code"
        ) from error
    wanted = features.state_dict()
    known = _names_in(backbone) or wanted.keys()
    originals = {name: _original_name(name, known) for name in wanted}
    common = [name for name, original in originals.items() if original in given]
    if not any(wanted[name].ndim > 1 for name in common):
        raise WeightsError(f"{origin}: holds no parameter of {backbone}; give weights of that architecture")
    for name in common:
        if wanted[name].shape != given[originals[name]].shape:
            raise WeightsError(
                f"{origin}: {originals[name]} has the shape {tuple(given[originals[name]].shape)}, but {backbone} "
                f"needs {tuple(wanted[name].shape)}; give weights of that architecture"
            )
    # A deeper network of the same family has all parameters of the shallower one, in the right shapes, and more.
    patterns = {re.sub(r"\d+", "#", name) for name in known}
    if more := sorted(name for name in given.keys() - known if re.sub(r"\d+", "#", name) in patterns):
        raise WeightsError(
            f"{origin}: has {len(more)} parameters more than {backbone}, such as {more[0]}; give weights of that "
            "architecture"
        )
    # Batch norm's counter of batches has no effect on the function and is often left out.
    fresh = [name for name in wanted if originals[name] not in given and not name.endswith("num_batches_tracked")]
    if whole and (lacking := [name for name in fresh if wanted[name].ndim > 1]):
        raise WeightsError(
            f"{origin}: lacks {len(lacking)} parameters of {backbone}, such as {lacking[0]}; give weights of that "
            "architecture"
        )
    features.load_state_dict({name: given[originals[name]] for name in common}, strict=False)
    return tuple(fresh)


def _names_in(backbone: str) -> set[str]:
    """Return the names of all parameters and buffers of a whole network, classifier included; none if unknown."""
    import timm

    if not timm.is_model(backbone):
        return set()
    # On the meta device nothing is computed; the caller's random numbers stay what they would have been.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return set(timm.create_model(backbone, pretrained=False).state_dict())


def _original_name(name: str, known: Collection[str]) -> str:
    """Return the name that a parameter has in the whole network.

    With ``features_only`` timm rebuilds the network. A module and its child become one (``stages.0`` → ``stages_0``,
    ``stem.conv1`` → ``stem_conv1``), or the network becomes a child itself (``body.conv1``, ``model.conv1``).
    """
    if name in known:
        return name
    first, _, rest = name.partition(".")
    splits = [f"{first[:at]}.{first[at + 1 :]}.{rest}" for at, letter in enumerate(first) if letter == "_"]
    return next((other for other in (rest, *splits) if other in known), name)


# -------------------------------------------------------------------------------------------------------- the hub


@dataclass(frozen=True, slots=True)
class _Download:
    """One file of a repository on the hub, or in the hub's cache on this machine."""

    backbone: str
    repository: str
    file: str
    revision: str | None

    @property
    def name(self) -> str:
        return f"{self.repository}/{self.file}"

    def fetch(self) -> tuple[str, bytes]:
        """Return the commit, and the content that has the digest which the hub states for it.

        ``huggingface_hub`` compares sizes only, and of a cached file not even that, so one bad connection or disk
        would go into every model from then on. What is damaged does not stay in the cache.
        """
        from huggingface_hub import hf_hub_download

        found = ""
        for pause in (*_PAUSES, None):
            try:
                path = Path(hf_hub_download(self.repository, self.file, revision=self.revision))
                content = path.read_bytes()
            except Exception as error:  # the library's own, those of its HTTP library and of the system
                found = self._explain(error, found)
            else:
                if _is_intact(content, self._stated_digest(path)):
                    return path.parent.name, content
                _remove(path)
                state = "cannot be deleted" if path.exists() else "is deleted"
                found = f"{path} did not have the digest that the hub states, and {state}"
            if pause is not None:
                time.sleep(pause)
        raise WeightsError(f"{self.backbone}: {self.name} did not arrive ({found}); try again later, {_OTHERWISE}")

    def _stated_digest(self, path: Path) -> str | None:
        """Return the entity tag of a cached file: sha256 of its content, or git's SHA-1 if it is in git itself."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        if path.is_symlink():  # to blobs/TAG: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
            return Path(os.readlink(path)).name
        with suppress(Exception):  # a cache without links does not keep the tag, and there may be no connection
            return get_hf_file_metadata(hf_hub_url(self.repository, self.file, revision=path.parent.name)).etag
        return None

    def _explain(self, error: Exception, found: str) -> str:
        """Return what happened if it may pass by itself, otherwise raise what a person should know and do.

        Args:
            error: what a download raised.
            found: what earlier attempts found.
        """
        from huggingface_hub import constants, errors

        not_cached = isinstance(error, errors.LocalEntryNotFoundError)
        cause = error.__cause__ if not_cached and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        hub = f"the hub at {constants.ENDPOINT}"
        said = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
        if not_cached and constants.HF_HUB_OFFLINE:
            why = f"is not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE forbids to download it"
            what = "unset HF_HUB_OFFLINE once"
        elif isinstance(cause, errors.GatedRepoError):
            why = f"is for accounts that have accepted its terms ({status})"
            what = f"accept them at {constants.ENDPOINT}/{self.repository} and log in with `hf auth login` or HF_TOKEN"
        elif isinstance(cause, errors.RepositoryNotFoundError) or status in (401, 403):
            why = f"is not there, or not for everyone: {hub} answered {status}"
            what = "log in with `hf auth login` or HF_TOKEN if it is private; a token that has expired is refused too"
        elif isinstance(cause, errors.RevisionNotFoundError):
            why = f"has no revision {self.revision or constants.DEFAULT_REVISION} on {hub}"
            what = "name another with --weights hub@COMMIT"
        elif isinstance(cause, errors.EntryNotFoundError) and not not_cached:
            why = f"is not there: {hub} has the repository without that file, and nothing but safetensors is loaded"
            what = "choose another backbone"
        elif isinstance(cause, errors.FileMetadataError):
            why = f"cannot be had, because what answers at {constants.ENDPOINT} is no such hub ({said})"
            what = "check HF_ENDPOINT, proxy and firewall"
        elif status is not None and status in TRY_AGAIN:
            return f"{hub} answered {status}"
        elif status is not None:
            why, what = f"cannot be had: {hub} answered {status}", "try again later"
        elif not_cached:
            why = f"is not in the cache ({constants.HF_HUB_CACHE}), and there is no connection to {hub} ({said})"
            what = "connect, or set HF_ENDPOINT to a hub within reach, or copy a cache there and set HF_HUB_OFFLINE=1"
        elif isinstance(cause, OSError) and (cause.filename or cause.errno in (errno.ENOSPC, errno.EDQUOT)):
            why = f"cannot be kept: {cause.filename or constants.HF_HUB_CACHE} ({cause.strerror})"
            what = "make room, or set HF_HOME to another folder"
        else:
            return said
        before = f" (before: {found})" if found else ""
        raise WeightsError(f"{self.backbone}: {self.name} {why}{before}; {what}, {_OTHERWISE}") from error


def _is_intact(content: bytes, stated: str | None) -> bool:
    """Return whether the content has the digest that the hub states, as far as the tag is one."""
    if stated is not None and re.fullmatch("[0-9a-f]{64}", stated):
        return hashlib.sha256(content).hexdigest() == stated
    if stated is not None and re.fullmatch("[0-9a-f]{40}", stated):
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == stated
    return True


def _remove(path: Path) -> None:
    """Remove a cached file and all that it is a link to; a cache that cannot be written stays as it is."""
    with suppress(OSError):
        while path.is_symlink():
            link, path = path, path.parent / os.readlink(path)
            link.unlink()
        path.unlink(missing_ok=True)


def _licence_of(repository: str, commit: str) -> str | None:
    """Return the licence in the head of the repository's README, from the cache where it is there."""
    from huggingface_hub import hf_hub_download, metadata_load

    with suppress(Exception):  # the weights are there, and what timm knows of the licence does as well
        return str((metadata_load(hf_hub_download(repository, "README.md", revision=commit)) or {})["license"])
    return None
