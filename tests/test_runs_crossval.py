from __future__ import annotations

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs the extra train")

import timm
import torch
from safetensors.torch import save_file

from clothing_classifier.evaluation.metrics import confusion, score
from clothing_classifier.runs import RunError, Settings, cross_validate, train
from clothing_classifier.runs.folder import Silent, find_commit
from clothing_classifier.training.approaches import APPROACHES
from clothing_classifier.training.calibration import soften
from clothing_classifier.training.splits import SplitError, assign_folds
from clothing_classifier.training.weights import WeightsError

CLASSES = ("Dress", "Hat", "Shorts", "Skirt")
RESULTS = Path(__file__).resolve().parents[1] / "results"
SMALL = "mobilenetv2_035"
CHANGING = ("cost", "training")
"""What a run measures of its machine, and where it was; all else is the same however often it was stopped."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen senders, each with photos of two classes; a class is a colour, a sender a shade of grey behind it."""
    root = tmp_path_factory.mktemp("data") / "wardrobe"
    (root / "images").mkdir(parents=True)
    noise = np.random.default_rng(0)
    rows = []
    for sender in range(16):
        for number in range(6):
            label = (sender + number % 2) % len(CLASSES)
            pixels = noise.integers(0, 60, (64, 48, 3), dtype=np.uint8) + np.uint8(4 * sender)
            pixels[16:48, 12:36] = noise.integers(0, 60, (32, 24, 3), dtype=np.uint8)
            pixels[16:48, 12:36, label % 3] += np.uint8(120 if label < 3 else 60)
            if label == 3:
                pixels[16:48, 12:36] += np.uint8(60)
            name = f"{sender:02}-{number}"
            Image.fromarray(pixels).save(root / "images" / f"{name}.jpg", quality=95)
            rows.append((name, sender, CLASSES[label], bool(sender % 2)))
    with (root / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "sender_id", "label", "kids"))
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parameters of a small backbone that learned nothing: any features do for these colours."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(timm.create_model(SMALL, num_classes=0).state_dict(), file)
    return file


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def small(dataset: Path, out: Path, **changes: Any) -> Settings:
    approach = APPROACHES["custom-cnn"]
    approach = replace(approach, recipe=replace(approach.recipe, batch_size=16, epochs=2))
    return replace(Settings(approach=approach, data=dataset, out=out, seed=1, folds=3, device="cpu"), **changes)


def tiny(dataset: Path, out: Path, **changes: Any) -> Settings:
    """A run that takes a moment, for what does not depend on how good it is."""
    given = small(dataset, out, epochs=1, folds=2)
    return replace(given, approach=replace(given.approach, height=32, width=24), **changes)


class Impatient(Silent):
    """A reporter that does not wait for pixels."""

    def stage(self, name: str) -> None:
        assert name != "Loading the photos"


class Beside(Silent):
    """A reporter that does something when the first fold begins."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def stage(self, name: str) -> None:
        if name.startswith("Fold 1 "):
            self.act()


def frozen(dataset: Path, out: Path, weights: Path, **changes: Any) -> Settings:
    approach = replace(APPROACHES["mobilenetv2-frozen"].with_backbone(SMALL), height=96, width=64)
    return replace(small(dataset, out, approach=approach, weights=str(weights)), **changes)


def figures(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    for row in metrics["folds"]:
        del row["seconds"]
    return {key: value for key, value in metrics.items() if key not in CHANGING}


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    cross_validate(small(dataset, out, split="sender"))
    return out


def test_a_table_of_labels_gives_the_folds_of_the_folder(dataset: Path, tmp_path: Path) -> None:
    """With its senders: own classes are cross-validated as the published ones are."""
    table = tmp_path / "labels.csv"
    table.write_text((dataset / "images.csv").read_text("utf-8").replace("image,sender_id", "file,sender"), "utf-8")
    lines = table.read_text("utf-8").splitlines()
    table.write_text("\n".join([lines[0], *(line.replace(",", ".jpg,", 1) for line in lines[1:])]), "utf-8")
    cross_validate(tiny(dataset, tmp_path / "folder", split="sender"))
    metrics = cross_validate(tiny(table, tmp_path / "table", split="sender", photos=dataset / "images"))
    folds, wanted = (read(tmp_path / name / "folds.csv") for name in ("table", "folder"))
    assert [row["fold"] for row in folds] == [row["fold"] for row in wanted]
    assert [f"images/{row['path']}" for row in folds] == [row["path"] for row in wanted]
    assert metrics["weighted_f1"] == figures(tmp_path / "folder")["weighted_f1"]
    assert "--data labels.csv --out table --photos images --folds sender" in metrics["training"]["command"]


def test_every_photo_is_judged_once_by_a_network_that_met_neither_it_nor_its_sender(run: Path) -> None:
    rows = read(run / "predictions.csv")
    assert len(rows) == len({row["path"] for row in rows}) == 96
    assert {row["fold"] for row in rows} == {"0", "1", "2"}
    folds_of = Counter((row["sender"], row["fold"]) for row in rows)
    assert len(folds_of) == 16, "no sender is in two folds"
    assert [(row["path"], row["fold"]) for row in rows] == [
        (row["path"], row["fold"]) for row in read(run / "folds.csv")
    ]


def test_the_figures_follow_from_the_predictions(run: Path) -> None:
    rows = read(run / "predictions.csv")
    metrics = json.loads((run / "metrics.json").read_text())
    truth = np.array([CLASSES.index(row["label"]) for row in rows])
    predicted = np.array([CLASSES.index(row["predicted"]) for row in rows])
    probabilities = np.array([[float(row[label]) for label in CLASSES] for row in rows])
    assert (probabilities.argmax(1) == predicted).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    expected = score(confusion(truth, predicted, len(CLASSES)))
    assert {name: metrics[name] for name in expected} == expected
    for row in metrics["folds"]:
        own = np.array([int(r["fold"]) == row["fold"] for r in rows])
        assert score(confusion(truth[own], predicted[own], len(CLASSES)))["weighted_f1"] == row["weighted_f1"]
    assert metrics["by"]["kids"]["kids"]["photos"] == 48
    assert metrics["by"]["sender_size"] == {"5-19": {"photos": 96, **expected}}
    assert sum(row["photos"] for row in metrics["reliability"]) == 96
    last = metrics["coverage"][-1]
    assert last["coverage"] == 1
    assert last["risk"] == pytest.approx(1 - expected["accuracy"], abs=1e-4)
    assert metrics["cost"]["parameters"] > 1e6
    assert metrics["cost"]["bytes"] > 4 * metrics["cost"]["parameters"]


def test_each_fold_is_calibrated_and_doubted_by_the_others(run: Path) -> None:
    rows = read(run / "predictions.csv")
    folds = np.array([int(row["fold"]) for row in rows])
    probabilities = np.array([[float(row[label]) for label in CLASSES] for row in rows])
    found = [np.load(run / f"fold-{fold}.npz") for fold in range(3)]
    temperatures = json.loads((run / "metrics.json").read_text())["temperatures"]
    for fold, (own, temperature) in enumerate(zip(found, temperatures, strict=True)):
        others = np.concatenate([other["residuals"] for other in found if other is not own])
        doubt = np.maximum(1, own["residuals"] / np.quantile(others, 0.9))
        wanted = soften(own["logits"] / doubt[:, None], temperature)
        np.testing.assert_allclose(probabilities[folds == fold], wanted, atol=1e-4)
    assert any((own["residuals"] > 0).any() for own in found)


def test_evidence_is_kept_of_mistakes_and_adds_up_to_their_margin(run: Path) -> None:
    evidence = np.load(run / "evidence.npy")
    rows = read(run / "predictions.csv")
    wrong = np.array([row["label"] != row["predicted"] for row in rows])
    assert evidence.shape[:2] == (96, 2)
    shown = ~np.isnan(evidence).all((1, 2, 3))
    assert (shown == wrong).all(), "so few mistakes are all kept"
    for fold in range(3):
        with np.load(run / f"fold-{fold}.npz") as kept:
            for place, maps in zip(kept["mistakes"], kept["maps"], strict=True):
                np.testing.assert_array_equal(maps, evidence[place])


def test_the_record_says_what_was_run_and_names_no_path(run: Path, dataset: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert (config["approach"], config["protocol"], config["folds"]) == ("custom-cnn", "sender", 3)
    assert config["data"]["photos"] == 96
    assert config["data"]["senders"] == 16
    metrics = json.loads((run / "metrics.json").read_text())
    assert "no sender in two folds" in metrics["protocol"]
    assert metrics["training"]["command"].startswith("clothing crossval custom-cnn --data wardrobe --out first --folds")
    for file in run.glob("*.json"):
        assert str(dataset.parent) not in file.read_text()
    assert not list(run.glob("*checkpoint*")), "a finished fold needs no checkpoint"
    before = json.loads((RESULTS / "efficientnet-b0-sender.json").read_text())["config"]["recipe"]
    assert config["recipe"].keys() == before.keys(), "a run from before is of the same recipe"
    assert config["recipe"]["balance"] == before["balance"]


def test_a_run_that_is_repeated_says_who_made_its_folds(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((run / "metrics.json").read_text())
    again = tmp_path / "again" / "first"
    shutil.copytree(run, again)
    monkeypatch.setattr("clothing_classifier.runs.crossval.find_commit", lambda: "another")
    monkeypatch.setattr("clothing_classifier.runs.crossval.available_cores", lambda: 99)
    assert cross_validate(small(dataset, again, split="sender")) == before
    (again / "fold-2.npz").unlink()
    after = cross_validate(small(dataset, again, split="sender"))
    assert after["training"]["commit"] == "; ".join(filter(None, [before["training"]["commit"], "another"]))
    assert after["cost"]["device"] == f"{before['cost']['device']}; cpu, 99 cores"


def test_a_commit_that_is_made_beside_a_run_did_not_make_it(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if find_commit() is None:
        pytest.skip("needs a checkout")
    said = ["old"]
    git = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(stdout=said[-1]), SubprocessError=OSError)
    monkeypatch.setattr("clothing_classifier.runs.folder.subprocess", git)
    find_commit.cache_clear()
    request.addfinalizer(find_commit.cache_clear)
    metrics = cross_validate(tiny(dataset, tmp_path / "run"), Beside(lambda: said.append("new")))
    assert said == ["old", "new"]
    assert metrics["training"]["commit"] == "old"


def test_the_record_makes_the_run_again(weights: Path, tmp_path: Path) -> None:
    """The command of another backbone, of other folds, and with a licence that is words."""
    plain = Settings(APPROACHES["resnet50-top10"], tmp_path / "data", tmp_path / "out", weights=str(weights))
    assert plain.describe("crossval", "--folds random") == (
        "clothing crossval resnet50-top10 --data data --out out --folds random --seed 0 --weights small.safetensors"
    )
    other = replace(plain, approach=plain.approach.with_backbone("resnet18"), weights_licence="MIT, by me")
    assert other.describe("crossval", "--folds random --count 3") == (
        "clothing crossval resnet50-top10 --data data --out out --folds random --count 3 --seed 0 "
        "--backbone resnet18 --weights small.safetensors --weights-licence 'MIT, by me'"
    )
    hub = replace(plain, weights="hub@refs/pr/1")
    assert "--weights hub@refs/pr/1" in hub.describe("crossval", "--folds random")


def test_epochs_and_members_can_be_chosen(dataset: Path, tmp_path: Path) -> None:
    metrics = cross_validate(tiny(dataset, tmp_path / "run", epochs=2, members=2))
    assert metrics["training"]["command"].endswith("--seed 1 --epochs 2 --members 2")
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert (recipe["epochs"], recipe["members"]) == (2, 2)
    curves = [(row["fold"], row["epoch"]) for row in read(tmp_path / "run" / "curves.csv")]
    assert curves == [(fold, epoch) for fold in "01" for epoch in "1234"]


@pytest.mark.parametrize(
    ("name", "backbone", "changes", "message"),
    [
        ("mobilenetv2-frozen", None, {"weights": "none"}, "a frozen backbone needs weights"),
        ("custom-cnn", None, {"epochs": 0}, "custom-cnn has no pretrained backbone"),
        ("resnet50", "resnet5O", {}, "timm has no backbone 'resnet5O'"),
        ("resnet50", "resnet50.badtag", {}, r"timm has no backbone .*Invalid pretrained tag \(badtag\)"),
        ("resnet50", "vit_tiny_patch16_224", {}, "timm has no backbone .* that gives maps"),
        ("resnet50", "resnet18", {"weights": "no.safetensors"}, "no.safetensors: cannot be read"),
        ("custom-cnn", None, {"weights": "no.safetensors"}, "this approach trains from nothing"),
    ],
)
@pytest.mark.parametrize("run", [cross_validate, train])
def test_what_cannot_be_is_told_before_photos_are_loaded(
    run: Callable[[Settings], object],
    tmp_path: Path,
    name: str,
    backbone: str | None,
    changes: dict[str, Any],
    message: str,
) -> None:
    approach = APPROACHES[name]
    approach = approach.with_backbone(backbone) if backbone else approach
    with pytest.raises((ValueError, WeightsError), match=message):
        run(Settings(approach, tmp_path / "nowhere", tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("run", [cross_validate, train])
def test_photos_without_senders_are_not_split_by_sender_and_nothing_is_said_of_any(
    run: Callable[[Settings, Silent], dict[str, Any]], dataset: Path, tmp_path: Path
) -> None:
    rows = read(dataset / "images.csv")
    for row in rows:
        folder = tmp_path / "wardrobe" / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(dataset / "images" / f"{row['image']}.jpg", folder)
    with pytest.raises(SplitError, match="sender"):
        run(tiny(tmp_path / "wardrobe", tmp_path / "out", split="sender"), Impatient())
    figures = run(tiny(tmp_path / "wardrobe", tmp_path / "out"), Silent())
    told = figures["protocol"] if run is cross_validate else figures["test"]["protocol"]
    assert "stratified by class at random" in told
    assert "sender" not in told
    assert "senders on both sides" in json.dumps(run(tiny(dataset, tmp_path / "others"), Silent()))


def test_all_approaches_get_the_same_folds_and_a_top_approach_a_part_of_them(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    approach = replace(small(dataset, tmp_path).approach, top=2, name="two")
    cross_validate(small(dataset, tmp_path / "two", approach=approach, split="sender", epochs=1))
    all_folds = {row["path"]: row["fold"] for row in read(run / "folds.csv")}
    rows = read(tmp_path / "two" / "folds.csv")
    assert {row["label"] for row in rows} == {"Dress", "Hat"}
    assert len(rows) == 48
    assert all(all_folds[row["path"]] == row["fold"] for row in rows)


def test_a_top_approach_does_not_mind_a_class_of_one_photo_that_it_leaves_out(dataset: Path, tmp_path: Path) -> None:
    root = shutil.copytree(dataset, tmp_path / "data")
    table = (root / "images.csv").read_text()
    (root / "images.csv").write_text(table.replace("00-0,0,Dress,", "00-0,0,Body,"))
    settings = tiny(root, tmp_path / "all")
    with pytest.raises(SplitError, match=r"Body \(1\)"):
        cross_validate(settings)
    settings = replace(settings, approach=replace(settings.approach, top=4))
    assert cross_validate(replace(settings, out=tmp_path / "folds"))["photos"] == 95
    assert set(train(replace(settings, out=tmp_path / "parts"))["test"]["per_class"]) == {*CLASSES}


def test_frozen_features_are_computed_once_for_all_protocols(
    dataset: Path, weights: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cross_validate(frozen(dataset, tmp_path / "random", weights))
    kept = list(cache.rglob("*.npy"))
    assert len(kept) == 1

    def refuse(*arguments: object) -> None:
        raise AssertionError("features are computed again")

    monkeypatch.setattr("clothing_classifier.training.features._compute", refuse)
    metrics = cross_validate(frozen(dataset, tmp_path / "sender", weights, split="sender"))
    assert metrics["accuracy"] > 0.5, "chance is a quarter"
    assert read(tmp_path / "sender" / "curves.csv") == []
    config = json.loads((tmp_path / "sender" / "config.json").read_text())
    assert config["backbone"] == SMALL
    assert config["weights"]["source"] == "file: small.safetensors"

    with kept[0].open("r+b") as file:  # a damaged cache is no cache
        file.truncate(1000)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    again = cross_validate(frozen(dataset, tmp_path / "again", weights, split="sender"))
    assert again["confusion"] == metrics["confusion"]


def test_all_folds_start_from_the_same_weights(dataset: Path, weights: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(weights, tmp_path))
    metrics = cross_validate(frozen(dataset, tmp_path / "run", file, folds=2), Beside(file.unlink))
    assert not file.exists()
    assert len(metrics["folds"]) == 2


def test_another_run_a_damaged_fold_and_a_given_split_are_refused(run: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="differs in: protocol; choose another folder"):
        cross_validate(small(dataset, run, split="random"), Impatient())
    with pytest.raises(RunError, match="makes its own folds"):
        cross_validate(small(dataset, tmp_path, split="given"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in run.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "fold-1.npz").write_bytes(b"PK nothing")
    with pytest.raises(RunError, match=r"fold-1\.npz: is damaged"):
        cross_validate(small(dataset, copy, split="sender"))
    (copy / "fold-1.npz").unlink()
    cross_validate(small(dataset, copy, split="sender"))
    assert figures(copy) == figures(run)


def test_a_run_does_not_go_on_with_other_senders(run: Path, dataset: Path, tmp_path: Path) -> None:
    """They decide the folds, and are not in the digest that tells one set of photos from another."""
    data = shutil.copytree(dataset, tmp_path / "wardrobe")
    out = shutil.copytree(run, tmp_path / "out")
    (out / "fold-2.npz").unlink()
    rows = read(data / "images.csv")
    with (data / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "sender_id": number % 16} for number, row in enumerate(rows))
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(RunError, match=r"folds\.csv: this run began with other senders.* choose another folder"):
        cross_validate(small(data, out, split="sender"))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def command_line(dataset: Path, out: Path) -> list[str]:
    words = ["crossval", "custom-cnn", "--data", str(dataset), "--out", str(out), "--epochs", "2", "--device", "cpu"]
    return [sys.executable, "-m", "clothing_classifier", *words, "--folds", "sender", "--count", "3"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_at_random_moments_it_ends_with_the_same_figures(dataset: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(command_line(dataset, tmp_path / "whole"), capture_output=True, text=True, timeout=300)
    whole = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert "weighted F1" in done.stdout
    out = tmp_path / "killed"
    moments = random.Random(5)
    killed = 0
    for _ in range(4):
        process = subprocess.Popen(command_line(dataset, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=whole * moments.uniform(0.4, 0.9))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed, "at least the first is killed before its end"
    subprocess.run(command_line(dataset, out), check=True, capture_output=True, timeout=300)
    assert figures(out) == figures(tmp_path / "whole")
    for name in ("predictions.csv", "folds.csv", "config.json", "evidence.npy"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_folds_are_those_of_the_whole_data(run: Path) -> None:
    rows = read(run / "folds.csv")
    expected = assign_folds([r["label"] for r in rows], [r["sender"] for r in rows], "sender", folds=3, seed=1)
    assert [int(row["fold"]) for row in rows] == expected.tolist()
