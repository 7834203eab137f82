"""Cross-validation: every photo is judged once, by a network that did not learn from it.

``clothing crossval efficientnet-b0 --data DIR --folds sender --out RUN`` runs it. What it leaves behind:

=================== ====================================================================================
``config.json``     everything that decides the result: approach, recipe, folds, seed, weights, data
``manifest.csv``    the photos as they were checked, with what was dropped and why
``folds.csv``       the fold in which each photo is held out
``fold-K.npz``      what fold K's network says of its photos; a run that was stopped goes on after the last
``curves.csv``      loss, accuracy and seconds of each epoch of each fold
``predictions.csv`` out-of-fold probabilities of every photo
``evidence.npy``    where the most confident mistakes saw the class predicted, and the true one
``cost.json``       parameters, multiply-adds, bytes and milliseconds
``metrics.json``    the figures, over all photos and by fold
=================== ====================================================================================

Nothing is chosen on the photos that are reported: epochs are fixed, heads are chosen within the training folds, and
what calibrates a fold comes from the other folds' photos.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from clothing_classifier import __version__
from clothing_classifier.machine import available_cores
from clothing_classifier.runs.folder import (
    Reporter,
    RunError,
    Silent,
    claim,
    find_commit,
    settle_table,
    to_json,
    write_arrays,
    write_bytes,
    write_table,
)
from clothing_classifier.runs.photos import (
    Loaded,
    Settings,
    choose_statistics,
    load,
    look,
    pretrained_statistics,
    record,
    select,
    settle,
    start,
)
from clothing_classifier.training.recipe import CURVES
from clothing_classifier.training.splits import assign_folds

if TYPE_CHECKING:
    import torch

    from clothing_classifier.training.approaches import Approach
    from clothing_classifier.training.features import Features
    from clothing_classifier.training.networks import Classifying

PROTOCOLS: Final = {
    "random": "{folds} folds, stratified by class at random",
    "sender": "{folds} folds, stratified by class, no sender in two folds",
}

_SHOWN: Final = 80
"""Of each fold, for how many of the most confident mistakes the evidence is kept."""

_TIMED: Final = 30


def cross_validate(settings: Settings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Cross-validate one approach, or go on where the run in ``settings.out`` was stopped.

    All approaches get the same folds of the same data: an approach of the most frequent classes has those folds
    without the other classes' photos.

    Args:
        settings: what a person chose; ``split`` is ``"random"`` (the default) or ``"sender"``.
        reporter: what is told of the progress; nothing by default.

    Returns:
        The content of ``metrics.json``.

    Raises:
        RunError: the folder holds another run or one of other folds, or a fold has no photos.
        DatasetError, SplitError, WeightsError, CheckpointError, ExportError, PhotoError, ValueError: as their rooms
            say.
    """
    from clothing_classifier.training.fit import choose_device

    reporter = reporter or Silent()
    find_commit()  # before anybody commits beside the run
    device = choose_device(settings.device)
    approach = settle(settings)
    protocol = settings.split or "random"
    if protocol == "given":
        raise RunError("cross-validation makes its own folds; choose random or sender")
    selection = select(settings, approach, reporter)
    everything = selection.manifest.kept
    labels, senders = [photo.label or "" for photo in everything], [photo.sender for photo in everything]
    folds = assign_folds(labels, senders, protocol, folds=settings.folds, seed=settings.seed, used=selection.labels)
    folds = folds[selection.chosen]
    for fold in range(settings.folds):
        if not (folds == fold).any():
            raise RunError(f"{settings.data}: fold {fold} has no photos; choose fewer folds, or add photos")

    statistics = pretrained_statistics(approach)
    network, origin = start(approach, settings, len(selection.labels), statistics)
    config = record(approach, selection, origin, statistics) | {
        "format": 1,
        "protocol": protocol,
        "folds": settings.folds,
        "seed": settings.seed,
    }
    config["data"] |= {"photos": len(selection.photos), "senders": int(selection.groups.max()) + 1}
    claim(settings.out, config)
    settle_table(
        settings.out / "folds.csv",
        ("path", "label", "sender", "kids", "fold"),
        [
            (p.path, p.label, p.sender or "", "" if p.kids is None else p.kids, fold)
            for p, fold in zip(selection.photos, folds.tolist(), strict=True)
        ],
        decisive=("path", "sender", "fold"),
    )
    selection.manifest.write(settings.out / "manifest.csv")
    loaded = load(selection, reporter)
    missing = [fold for fold in range(settings.folds) if not fold_file(settings.out, fold).exists()]
    views = look(copy.deepcopy(network), origin, loaded.pixels, device, reporter) if missing else None
    for fold in missing:
        reporter.stage(f"Fold {fold + 1} of {settings.folds}")
        _run_fold(settings, approach, network, loaded, folds, fold, views, device, reporter)
    reporter.stage("Measuring")
    return _finish(settings, loaded, folds, protocol, device)


def fold_file(out: Path, fold: int) -> Path:
    """Return the file of what a fold's network says of its photos."""
    return out / f"fold-{fold}.npz"


def _run_fold(
    settings: Settings,
    approach: Approach,
    fresh: Classifying,
    loaded: Loaded,
    folds: npt.NDArray[np.int64],
    fold: int,
    views: tuple[Features, Features] | None,
    device: torch.device,
    reporter: Reporter,
) -> None:
    from clothing_classifier.training.fit import embed
    from clothing_classifier.training.learn import learn
    from clothing_classifier.training.networks import Normalisation
    from clothing_classifier.training.subspace import fit_subspace

    teaching, judging = folds != fold, folds == fold
    # All folds start from the parameters that config.json names: a file, or the hub's, may be another by now.
    network = copy.deepcopy(fresh)
    network.normalisation = Normalisation(choose_statistics(approach, loaded.pixels[teaching]))
    checkpoint = settings.out / f"fold-{fold}.checkpoint.pt"
    started = time.monotonic()
    network, curves = learn(
        network,
        approach.recipe,
        (loaded.pixels[teaching], loaded.truth[teaching]),
        (loaded.pixels[judging], loaded.truth[judging]),
        views=views and [view[teaching] for view in views],
        groups=loaded.groups[teaching],
        fill=loaded.resizing.fill,
        seed=settings.seed,
        device=device,
        checkpoint=checkpoint,
        on_step=lambda step: reporter.step(step, approach.recipe.all_epochs),
    )
    seconds = sum(row["seconds"] for row in curves) or time.monotonic() - started
    truth = loaded.truth[judging]
    if approach.frozen and views is not None:  # the backbone has said all that it has to say
        taught, unseen = (network.standardise(views[0][part]) for part in (teaching, judging))
    else:
        taught, unseen = (embed(network, loaded.pixels[part]) for part in (teaching, judging))
    logits = network.judge(unseen)
    mistakes, maps = _explain(network, loaded.pixels[judging], logits, truth, device)
    if fold == 0:  # before the fold's file is there: a run that goes on does not come here again
        _measure_cost(settings.out, network, loaded)
    write_arrays(
        fold_file(settings.out, fold),
        logits=logits,
        residuals=fit_subspace(taught).measure(unseen),
        seconds=np.array(seconds),
        curves=np.array([[row[name] for name in CURVES] for row in curves]).reshape(-1, len(CURVES)),
        mistakes=np.flatnonzero(judging)[mistakes],
        maps=maps,
        made=np.array([find_commit() or "", __version__, _describe(device)]),
    )
    checkpoint.unlink(missing_ok=True)


def _explain(
    network: Classifying,
    pixels: npt.NDArray[np.uint8],
    logits: npt.NDArray[np.float32],
    truth: npt.NDArray[np.int64],
    device: torch.device,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
    """Return the most confident mistakes, and ``float16 [N, 2, h, w]``: evidence for what was said and what is true."""
    import torch

    predicted = logits.argmax(1)
    margin = logits.max(1) - logits[np.arange(len(truth)), truth]
    mistakes = np.argsort(-margin, kind="stable")[: min(_SHOWN, int((predicted != truth).sum()))]
    maps = []
    with torch.inference_mode():
        for index in mistakes:
            picture = torch.from_numpy(pixels[index : index + 1]).to(device).permute(0, 3, 1, 2).float()
            found = network.embed(picture)[0]
            pair = network.head.weight[[int(predicted[index]), int(truth[index])]]
            maps.append(torch.einsum("kc,chw->khw", pair, found).float().cpu().numpy().astype(np.float16))
    return mistakes, np.stack(maps) if maps else np.empty((0, 2, 1, 1), np.float16)


def _measure_cost(out: Path, network: Classifying, loaded: Loaded) -> None:
    """Measure what a network of this approach costs its users: on one core, and as a file with weights in float32."""
    import onnxruntime
    from torch.utils.flop_counter import FlopCounterMode

    from clothing_classifier.training.export import Deployed, export

    network = network.cpu().eval()
    example = loaded.pixels[:2] if len(loaded.pixels) > 1 else loaded.pixels[[0, 0]]
    model = export(network, 1.0, example).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(_TIMED):
        started = time.perf_counter()
        session.run(None, {"pixels": example[:1]})
        times.append(time.perf_counter() - started)
    import torch

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        Deployed(network, 1.0)(torch.from_numpy(example[:1]))
    cost = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": int(counter.get_total_flops()) // 2,
        "bytes": len(model),
        "milliseconds": round(float(np.median(times)) * 1e3, 2),
    }
    write_bytes(out / "cost.json", to_json(cost))


def _finish(
    settings: Settings,
    loaded: Loaded,
    folds: npt.NDArray[np.int64],
    protocol: str,
    device: torch.device,
) -> dict[str, Any]:
    """Put the folds together, calibrate each by the others, and measure."""
    from clothing_classifier.evaluation.metrics import measure_folds
    from clothing_classifier.taxonomy import TOP_10
    from clothing_classifier.training.calibration import calibrate_folds

    found = [read_fold(fold_file(settings.out, fold)) for fold in range(settings.folds)]
    # Folds from before residuals were measured know of nothing strange.
    measured = all("residuals" in result for result in found)
    residuals = gather(found, folds, "residuals") if measured else np.zeros(len(folds), np.float32)
    calibrated, temperatures = calibrate_folds(gather(found, folds, "logits"), residuals, loaded.truth, folds)
    probabilities = calibrated.astype(np.float32)

    shape = next((result["maps"].shape[1:] for result in found if len(result["maps"])), (2, 1, 1))
    evidence = np.full((len(folds), *shape), np.nan, np.float16)
    for result in found:
        evidence[result["mistakes"]] = result["maps"]
    partial = settings.out / "evidence.partial.npy"
    np.save(partial, evidence)
    partial.replace(settings.out / "evidence.npy")

    curves = [(fold, *row) for fold, result in enumerate(found) for row in result["curves"].tolist()]
    write_table(settings.out / "curves.csv", ("fold", *CURVES), [(row[0], int(row[1]), *row[2:]) for row in curves])
    predicted = probabilities.argmax(1)
    write_table(
        settings.out / "predictions.csv",
        ("path", "label", "sender", "fold", "predicted", *loaded.labels),
        [
            (photo.path, photo.label, photo.sender or "", fold, loaded.labels[best], *(f"{p:.6f}" for p in row))
            for photo, fold, best, row in zip(loaded.photos, folds.tolist(), predicted, probabilities, strict=True)
        ],
    )
    # Folds from before they said so were made by whoever measures them, as far as anybody knows.
    now = [find_commit() or "", __version__, _describe(device)]
    commits, versions, devices = zip(*(result.get("made", np.array(now)).tolist() for result in found), strict=True)
    seconds = [float(result["seconds"]) for result in found]
    split = PROTOCOLS[protocol].format(folds=settings.folds)
    if protocol == "random" and loaded.manifest.senders_known:
        split += " (the published protocol; senders on both sides)"
    split += f"; seed {settings.seed}"
    together = [name for number, name in enumerate(loaded.labels) if len(set(folds[loaded.truth == number])) == 1]
    if together:
        split += f"; judged by a network that never met the class, as one fold holds all of it: {', '.join(together)}"
    metrics = {
        "protocol": split,
        **measure_folds(
            loaded.truth,
            probabilities,
            loaded.labels,
            folds,
            groups=loaded.groups if protocol == "sender" else None,
            senders=loaded.groups,
            kids=[photo.kids for photo in loaded.photos],
            subsets={"top10": TOP_10} if set(TOP_10) < set(loaded.labels) else {},
        ),
        "temperatures": [round(value, 4) for value in temperatures],
        "cost": json.loads((settings.out / "cost.json").read_text("utf-8"))
        | {"device": _all_of(devices), "training_seconds": round(sum(seconds))},
        "training": {
            "command": settings.describe("crossval", f"--folds {protocol} --count {settings.folds}"),
            "version": _all_of(versions),
            "commit": _all_of(commits) or None,
        },
    }
    for row, spent in zip(metrics["folds"], seconds, strict=True):
        row["seconds"] = round(spent)
    write_bytes(settings.out / "metrics.json", to_json(metrics))
    return metrics


def _describe(device: torch.device) -> str:
    cores = available_cores()
    return device.type if device.type != "cpu" else f"cpu, {cores} core{'' if cores == 1 else 's'}"


def _all_of(values: Sequence[str]) -> str:
    """Return what the folds say of how they were made: one thing, unless the run went on under other conditions."""
    return "; ".join(dict.fromkeys(filter(None, values)))


def gather(
    found: Sequence[Mapping[str, npt.NDArray[Any]]], folds: npt.NDArray[np.int64], name: str
) -> npt.NDArray[np.float32]:
    """Return what the folds' arrays say of their photos in the order of the photos, ``float32 [N, ...]``.

    Raises:
        KeyError: a fold does not have it.
        ValueError: a fold has it of more or fewer photos.
    """
    gathered = np.empty((len(folds), *found[0][name].shape[1:]), np.float32)
    for fold, result in enumerate(found):
        gathered[folds == fold] = result[name]
    return gathered


def read_fold(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Return a fold's arrays by their names.

    Raises:
        RunError: the file is not there yet, or damaged.
    """
    try:
        with np.load(file) as arrays:
            found = dict(arrays)
            found["logits"], found["seconds"], found["curves"], found["mistakes"], found["maps"]  # what every fold has
            return found
    except FileNotFoundError as error:
        raise RunError(
            f"{file.parent}: is not finished ({file.name} is missing); repeat its command, with the same --out, to "
            "go on"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(f"{file}: is damaged ({error}); delete it, then repeat the command to make it again") from error
