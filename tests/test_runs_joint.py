from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("torch", reason="needs the extra train")

import torch

from clothing_classifier import Classifier
from clothing_classifier.card import mark, read_model
from clothing_classifier.cli import main
from clothing_classifier.dataset import read_manifest
from clothing_classifier.evaluation.comparison import read_run
from clothing_classifier.evaluation.report import render
from clothing_classifier.runs import RunError, Settings, cross_validate, join_runs, train
from clothing_classifier.training.approaches import APPROACHES, IMAGENET_MEAN, IMAGENET_STD, build
from clothing_classifier.training.calibration import fit_temperature, soften
from clothing_classifier.training.export import export
from clothing_classifier.training.graft import graft
from clothing_classifier.training.joining import JoinError, join, read_head
from clothing_classifier.training.networks import Statistics

CLASSES = ("Dress", "Hat", "Pants")
MEMBERS = {"one": 2, "other": 1}
"""Two approaches that differ in their epochs."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GitHub edition in small: photos of three classes, from six senders."""
    root = tmp_path_factory.mktemp("data") / "clothing-dataset"
    (root / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    with (root / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "sender_id", "label", "kids"))
        for number in range(36):
            kind = number % len(CLASSES)
            pixels = random.integers(0, 90, (60, 45, 3), dtype=np.uint8)
            pixels[..., kind] += random.integers(20, 120, dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"photo-{number:02}.jpg")
            writer.writerow((f"photo-{number:02}", number // len(CLASSES) % 6, CLASSES[kind], number % 2 == 0))
    return root


@pytest.fixture(scope="module")
def runs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both members' cross-validations and models: ``one-random``, ``one-model`` and so on."""
    root = tmp_path_factory.mktemp("runs")
    for name, epochs in MEMBERS.items():
        approach = APPROACHES["custom-cnn"]
        approach = replace(approach, name=name, recipe=replace(approach.recipe, batch_size=12, epochs=epochs))
        given = Settings(approach=approach, data=dataset, out=root, device="cpu", folds=2)
        for protocol in ("random", "sender"):
            cross_validate(replace(given, out=root / f"{name}-{protocol}", split=protocol))
        judges = tuple(root / f"{name}-{protocol}" for protocol in ("random", "sender"))
        train(replace(given, out=root / f"{name}-model", crossvals=judges))
    return root


@pytest.fixture(scope="module")
def joined(runs: Path) -> Path:
    """A folder with the members joined: ``random``, ``sender`` and ``model``."""
    out = runs / "joined"
    for protocol in ("random", "sender"):
        join_runs([runs / f"{name}-{protocol}" for name in MEMBERS], out / protocol)
    join_runs([runs / f"{name}-model" for name in MEMBERS], out / "model", [out / "random", out / "sender"])
    return out


def read_probabilities(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = np.array([CLASSES.index(row["label"]) for row in rows])
    return np.array([[float(row[c]) for c in CLASSES] for row in rows]), truth, np.array([int(r["fold"]) for r in rows])


def test_each_photo_is_judged_by_the_mean_of_its_folds_logits(runs: Path, joined: Path) -> None:
    probabilities, truth, folds = read_probabilities(joined / "sender")
    logits = np.empty((len(truth), len(CLASSES)))
    for fold in range(2):
        said = [np.load(runs / f"{name}-sender" / f"fold-{fold}.npz")["logits"] for name in MEMBERS]
        logits[folds == fold] = (said[0] + said[1]) / 2
    for fold in range(2):
        own = folds == fold
        wanted = soften(logits[own], fit_temperature(logits[~own].astype(np.float32), truth[~own]))
        np.testing.assert_allclose(probabilities[own], wanted, atol=2e-3)
    metrics = json.loads((joined / "sender" / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(float((probabilities.argmax(1) == truth).mean()), abs=1e-4)
    assert metrics["training"]["command"] == "clothing join one-sender other-sender --out sender"
    parts = [json.loads((runs / f"{name}-sender" / "metrics.json").read_text())["cost"] for name in MEMBERS]
    for name in ("parameters", "multiply_adds"):
        assert metrics["cost"][name] == sum(part[name] for part in parts)
    assert metrics["cost"]["device"] == parts[0]["device"] == parts[1]["device"]


def test_a_joined_cross_validation_is_compared_like_any_other(runs: Path, joined: Path) -> None:
    read = [read_run(folder) for folder in (runs / "one-sender", runs / "other-sender", joined / "sender")]
    assert [run.result.approach for run in read] == ["one", "other", "one+other"]
    assert "one+other" in render(read, title="Joined", data=None, photos=False)


def test_the_joined_file_says_what_its_members_say_together(dataset: Path, runs: Path, joined: Path) -> None:
    members = [Classifier.load(runs / f"{name}-model" / "model.onnx") for name in MEMBERS]
    together = Classifier.load(joined / "model" / "model.onnx")
    paths = sorted((dataset / "images").iterdir())[:7]
    pixels = np.stack([together.prepare(path) for path in paths])
    outputs = [member.run(pixels) for member in members]
    found = together.run(pixels)
    logits = np.mean(
        [m.card.temperature * o.evidence.mean((2, 3)) for m, o in zip(members, outputs, strict=True)], axis=0
    )
    np.testing.assert_allclose(found.probabilities, soften(logits, together.card.temperature), atol=1e-4)
    np.testing.assert_allclose(found.evidence.mean((2, 3)), logits / together.card.temperature, atol=1e-3)
    np.testing.assert_allclose(found.embedding, np.concatenate([o.embedding for o in outputs], axis=1), atol=1e-4)
    card = together.card
    assert card.name == "one+other"
    assert list(card.metrics) == ["sender folds", "random folds"]
    measured = json.loads((joined / "sender" / "metrics.json").read_text())
    assert card.metrics["sender folds"]["weighted_f1"] == measured["weighted_f1"]
    assert [member["command"].split()[2] for member in card.training["members"]] == ["one", "other"]
    known = read_model(joined / "model" / "model.onnx").read_photos()
    assert known == read_model(runs / "one-model" / "model.onnx").read_photos()
    assert known == frozenset(mark(photo.sha256) for photo in read_manifest(joined / "model" / "manifest.csv").kept)


def test_a_joined_model_takes_another_head_and_can_be_joined_again(dataset: Path, joined: Path) -> None:
    model = read_model(joined / "model" / "model.onnx")
    classifier = Classifier(model)
    pixels = np.stack([classifier.prepare(path) for path in sorted((dataset / "images").iterdir())[:3]])
    size = classifier.run(pixels).embedding.shape[1]
    head = np.random.default_rng(0).normal(0, 0.1, (5, size)).astype(np.float32)
    assert len(graft(model.content, head, np.zeros(5, np.float32), pixels).graph.output) == 3
    again = join([model.content] * 2, [model.card.temperature] * 2, model.card.temperature, pixels)
    assert len(again.graph.output) == 3


def test_a_last_layer_without_a_bias_is_joined_too() -> None:
    torch.manual_seed(0)
    network = build(APPROACHES["custom-cnn"], 3, Statistics(IMAGENET_MEAN, IMAGENET_STD)).eval()
    assert not network.head.bias.any(), "a fresh head's, which the exporter drops"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 112, 3), np.uint8)
    content = export(network, 1.0, pixels).SerializeToString()
    weight, bias = read_head(content)
    assert weight.shape == (3, network.head.in_features)
    np.testing.assert_array_equal(bias, np.zeros(3))
    assert len(join([content] * 2, [1.0] * 2, 1.0, pixels).graph.output) == 3


def test_models_of_other_classes_are_refused(runs: Path) -> None:
    model = read_model(runs / "one-model" / "model.onnx")
    pixels = np.zeros((1, model.card.resizing.height, model.card.resizing.width, 3), np.uint8)
    size = Classifier(model).run(pixels).embedding.shape[1]
    other = graft(model.content, np.zeros((4, size), np.float32), np.zeros(4, np.float32), pixels)
    with pytest.raises(JoinError, match="different numbers of classes"):
        join([model.content, other.SerializeToString()], [1.0, 1.0], 1.0, pixels)


def test_runs_that_do_not_fit_are_refused(runs: Path, joined: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"one-random.*differs from .*one-sender in: protocol"):
        join_runs([runs / "one-sender", runs / "one-random"], tmp_path / "out")
    with pytest.raises(RunError, match="others are models"):
        join_runs([runs / "one-sender", runs / "other-model"], tmp_path / "out")
    with pytest.raises(RunError, match="--crossval"):
        join_runs([runs / "one-model", runs / "other-model"], tmp_path / "out")
    with pytest.raises(RunError, match="differs in: approach"):
        join_runs([runs / "one-model", runs / "other-model"], tmp_path / "out", [runs / "one-sender"])
    with pytest.raises(RunError, match="leave --crossval out"):
        join_runs([runs / "one-sender", runs / "other-sender"], tmp_path / "out", [joined / "sender"])
    unfinished = shutil.copytree(runs / "other-sender", tmp_path / "unfinished")
    (unfinished / "fold-1.npz").unlink()
    with pytest.raises(RunError, match=r"unfinished: is not finished \(fold-1\.npz is missing\); repeat its command"):
        join_runs([runs / "one-sender", unfinished], tmp_path / "out")
    (unfinished / "folds.csv").write_text((unfinished / "folds.csv").read_text().replace(",0\n", ",1\n"))
    with pytest.raises(RunError, match="its folds are not those"):
        join_runs([runs / "one-sender", unfinished], tmp_path / "out")
    (unfinished / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json: is damaged"):
        join_runs([runs / "one-sender", unfinished], tmp_path / "out")
    (unfinished / "config.json").unlink()
    with pytest.raises(RunError, match=r"config\.json: cannot be read"):
        join_runs([runs / "one-sender", unfinished], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_joins_and_says_what_came_of_it(runs: Path, joined: Path, tmp_path: Path) -> None:
    members = [str(runs / f"{name}-sender") for name in MEMBERS]
    result = CliRunner().invoke(main, ["join", *members, "--out", str(tmp_path / "both folds")])
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "both folds" / "metrics.json").read_text())
    assert metrics["training"]["command"] == "clothing join one-sender other-sender --out 'both folds'"
    assert f"weighted F1 {metrics['weighted_f1']:.3f}" in result.stdout
    models = [str(runs / f"{name}-model") for name in MEMBERS]
    command = ["join", *models, "--crossval", str(joined / "sender"), "--out", str(tmp_path / "model")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "model.onnx" in result.stdout
    for arguments, reason in (
        ([members[0]], "two or more"),
        ([members[0], members[0]], "named twice"),
        (members, "choose another folder"),
    ):
        out = members[0] if reason == "choose another folder" else str(tmp_path / "none")
        result = CliRunner().invoke(main, ["join", *arguments, "--out", out])
        assert result.exit_code == 2
        assert reason in result.stderr
