"""Finished runs of several approaches → one that answers with the mean of their logits.

``clothing join RUN RUN --out RUN`` runs it; nothing learns. Joined cross-validations are one more cross-validation:
each photo is judged by networks of the same fold, none of which learned from it. Joined models are one more model
file; what its card says comes from joined cross-validations of the same members. Every member counts the same, so
nothing is chosen on the photos that judge.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np

from clothing_classifier import __version__
from clothing_classifier.card import ModelCard, read_model
from clothing_classifier.dataset import Photo
from clothing_classifier.runs.crossval import Judged, conclude, fold_file, read_fold
from clothing_classifier.runs.folder import RunError, claim, find_commit, read_table, to_json, write_arrays, write_bytes
from clothing_classifier.runs.judgement import read_judgement
from clothing_classifier.training.splits import number_senders

_SHARED: Final = ("resizing", "labels", "data", "protocol", "folds", "split", "seed")
"""What members must have in common, where they have it."""

_CHECKED: Final = 4
"""On how many pictures of noise the joined graph is held against its members."""


def join_runs(members: Sequence[Path], out: Path, crossvals: Sequence[Path] = ()) -> dict[str, Any]:
    """Join finished runs: all of them cross-validations, or all of them models that all photos taught.

    Args:
        members: the runs' folders, two or more.
        out: the joined run's folder; made if it is not there.
        crossvals: for models, joined cross-validations of the same members, one for each protocol.

    Returns:
        The content of the joined run's ``metrics.json``.

    Raises:
        RunError: the runs do not fit together, or one is missing, unfinished or damaged.
        JoinError: their models cannot be joined.
        ModelError: a model file cannot be read.
    """
    if len(members) < 2:
        raise RunError("joining takes two or more runs")
    configs = [_read_config(folder) for folder in members]
    kinds = {"folds" in config for config in configs}
    if len(kinds) > 1:
        raise RunError("some of these runs are cross-validations and others are models; join one kind at a time")
    for folder, config in zip(members[1:], configs[1:], strict=True):
        different = [name for name in _SHARED if config.get(name) != configs[0].get(name)]
        if different:
            raise RunError(f"{folder}: differs from {members[0]} in: {', '.join(different)}; these cannot be joined")
    config = _join_configs(configs)
    if kinds == {True}:
        if crossvals:
            raise RunError("cross-validations judge by themselves; leave --crossval out")
        return _join_crossvals(members, configs, config, out)
    return _join_models(members, config, out, crossvals)


def _join_configs(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = [config["approach"] for config in configs]
    weights = [config["weights"] for config in configs]
    return {name: value for name, value in configs[0].items() if name in (*_SHARED, "format")} | {
        "approach": "+".join(names),
        "summary": f"{' and '.join(names)}, the mean of their logits",
        "backbone": [config["backbone"] for config in configs],
        "recipe": [config["recipe"] for config in configs],
        "sides": [config.get("sides", False) for config in configs],
        "weights": {
            "source": " + ".join(str(given["source"]) for given in weights),
            "licence": "; ".join(dict.fromkeys(str(given["licence"]) for given in weights)),
            "members": weights,
        },
        "mean": None,
        "std": None,
    }


def _join_crossvals(
    members: Sequence[Path], configs: Sequence[dict[str, Any]], config: dict[str, Any], out: Path
) -> dict[str, Any]:
    tables = [_read_folds(folder) for folder in members]
    for folder, rows in zip(members[1:], tables[1:], strict=True):
        if rows != tables[0]:
            raise RunError(f"{folder}: its folds are not those of {members[0]}; cross-validate both on the same data")
    photos = [
        Photo(row["path"], row["label"], row["sender"] or None, {"True": True, "False": False}.get(row["kids"]))
        for row in tables[0]
    ]
    labels = tuple(config["labels"])
    folds = np.array([int(row["fold"]) for row in tables[0]], np.int64)
    truth = np.array([labels.index(photo.label or "") for photo in photos], np.int64)
    logits = np.empty((len(photos), len(labels)), np.float32)
    seconds = []
    answers = [[read_fold(fold_file(folder, fold)) for folder in members] for fold in range(config["folds"])]
    copies = {name: _read(members[0] / name) for name in ("manifest.csv", "folds.csv")}
    costs = [_read_json(folder / "cost.json") for folder in members]
    # The members need not be measured; where they are, that says what trained them.
    measured = [_read_json(file) for folder in members if (file := folder / "metrics.json").exists()]
    claim(out, config)
    for fold, found in enumerate(answers):
        logits[folds == fold] = np.mean([one["logits"] for one in found], axis=0)
        seconds.append(sum(float(one["seconds"]) for one in found))
        write_arrays(fold_file(out, fold), logits=logits[folds == fold], seconds=np.array(seconds[-1]))
    for name, content in copies.items():
        write_bytes(out / name, content)
    cost = {name: sum(one[name] for one in costs) for name in ("parameters", "multiply_adds", "bytes")}
    cost["milliseconds"] = round(sum(one["milliseconds"] for one in costs), 2)
    write_bytes(out / "cost.json", to_json(cost))
    if devices := {str(device): None for one in measured if (device := one.get("cost", {}).get("device"))}:
        cost["device"] = "; ".join(devices)
    return conclude(
        out,
        Judged(photos, labels, truth, number_senders([photo.sender for photo in photos]), folds, logits),
        protocol=config["protocol"],
        seed=config["seed"],
        seconds=seconds,
        cost=cost,
        command=_command(members, out),
        version=__version__,
        commit=find_commit(),
    )


def _join_models(
    members: Sequence[Path], config: dict[str, Any], out: Path, crossvals: Sequence[Path]
) -> dict[str, Any]:
    from clothing_classifier.training.joining import join
    from clothing_classifier.training.packing import pack

    if config.get("split") != "none" or not crossvals:
        raise RunError(
            "only models that all photos taught are joined, and joined cross-validations judge them: train the members "
            "with `clothing train --crossval`, and name the joined cross-validations with --crossval"
        )
    judgement = read_judgement(crossvals, config)
    config["crossvals"] = judgement.sources
    models = [read_model(folder / "model.onnx") for folder in members]
    cards = [model.card for model in models]
    photos = frozenset[str]().union(*(model.read_photos() or () for model in models))
    copies = {name: _read(members[0] / name) for name in ("manifest.csv", "split.csv")}
    resizing = cards[0].resizing
    pixels = np.random.default_rng(0).integers(0, 256, (_CHECKED, resizing.height, resizing.width, 3), np.uint8)
    graph = join(
        [model.content for model in models], [card.temperature for card in cards], judgement.temperature, pixels
    )
    card = ModelCard(
        name=config["approach"],
        labels=cards[0].labels,
        resizing=resizing,
        threshold=judgement.promise["threshold"],
        temperature=judgement.temperature,
        promise=judgement.promise,
        metrics=judgement.metrics,
        data=cards[0].data,
        training={
            "approach": config["approach"],
            "summary": config["summary"],
            "backbone": config["backbone"],
            "recipe": config["recipe"],
            "command": _command(members, out, crossvals),
            "seconds": sum(card.training["seconds"] for card in cards),
            "crossvals": judgement.sources,
            "members": [{"command": card.training["command"], "commit": card.commit} for card in cards],
        },
        weights=config["weights"],
        licence="; ".join(dict.fromkeys(card.licence for card in cards)),
        version=__version__,
        commit=find_commit(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    claim(out, config)
    for name, content in copies.items():
        write_bytes(out / name, content)
    write_bytes(out / "model.onnx", pack(graph, card, photos))
    write_bytes(out / "metrics.json", to_json(judgement.metrics))
    return judgement.metrics


def _command(members: Sequence[Path], out: Path, crossvals: Sequence[Path] = ()) -> str:
    words = ["clothing", "join", *(folder.resolve().name for folder in members), "--out", out.resolve().name]
    for folder in crossvals:
        words += ["--crossval", folder.resolve().name]
    return shlex.join(words)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); finish the run first") from error


def _read_json(file: Path) -> dict[str, Any]:
    content = _read(file)
    try:
        found = json.loads(content)
    except ValueError as error:
        raise RunError(f"{file}: is damaged ({error}); repeat the run in a new folder") from error
    if not isinstance(found, dict):
        raise RunError(f"{file}: is damaged (not an object); repeat the run in a new folder")
    return found


def _read_config(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json")
    missing = [name for name in ("approach", "recipe", "weights", "backbone", *_SHARED[:3]) if name not in config]
    if missing:
        raise RunError(f"{folder}: is not a run that can be joined, its config.json has no {missing[0]}")
    return config


def _read_folds(folder: Path) -> list[dict[str, str]]:
    try:
        return read_table(folder / "folds.csv")
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / 'folds.csv'}: cannot be read ({error}); repeat the run in a new folder") from error
