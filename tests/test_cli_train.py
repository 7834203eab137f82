from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("torch", reason="needs the extra train")

from clothing_classifier.cli import main
from clothing_classifier.cli.train import Terminal
from clothing_classifier.training.fit import Step


def draw(file: Path, random: np.random.Generator) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(file)


def test_each_stage_has_its_own_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that goes on in the middle of a fold must not measure the next fold by that one's beginning."""
    clock = itertools.count(step=10)  # a step takes ten seconds, whoever asks for the time
    monkeypatch.setattr("clothing_classifier.cli.train.time.monotonic", lambda: next(clock))
    terminal = Terminal()
    terminal.stage("Fold 3 of 5")
    for number in range(8, 10):
        terminal.step(Step(number // 2, number % 2 + 1, 2, 0.5), 5)
    terminal.stage("Fold 4 of 5")
    for number in range(4):
        terminal.step(Step(number // 2, number % 2 + 1, 2, 0.5), 5)
    said = [line for line in capsys.readouterr().err.splitlines() if "left" in line]
    assert [line.rpartition(", ")[0] for line in said] == [
        "epoch 5/5, loss 0.500",
        "epoch 1/5, loss 0.500",
        "epoch 2/5, loss 0.500",
    ]
    minutes = [line.rpartition(", ")[2].removesuffix(" left").split(":") for line in said]
    seconds = [int(parts[0]) * 60 + int(parts[1]) for parts in minutes]
    assert seconds[0] == 0
    assert 40 <= seconds[1] <= 160
    assert 30 <= seconds[2] <= 120


@pytest.mark.parametrize("words", [("train",), ("crossval", "--count", "2")], ids=lambda words: words[0])
def test_an_approach_says_what_it_left_out(words: tuple[str, ...], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label in ("kilt", "sari"):
        for number in range(7):
            draw(tmp_path / "data" / label / f"{number}.png", random)
    (tmp_path / "data" / "sari" / "7.png").write_bytes(b"torn")
    (tmp_path / "data" / "sari" / "8.png").write_bytes((tmp_path / "data" / "sari" / "0.png").read_bytes())
    command, *options = words
    common = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu"]
    result = CliRunner().invoke(main, [command, "custom-cnn", *options, *common], catch_exceptions=False)
    assert result.exit_code == 0
    said = result.stdout
    assert "Left out: sari/7.png (unreadable: " in said
    assert "Left out in all: unreadable (1), exact copy (1); manifest.csv names each photo and the reason." in said


def test_an_approach_says_that_labels_of_a_table_may_be_a_models_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = ["path,label,probability,sure"]
    for number in range(14):
        draw(tmp_path / f"{number}.png", random)
        rows.append(f"{number}.png,{('kilt', 'sari')[number % 2]},0.9,true")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    words = ["crossval", "custom-cnn", "--data", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "run")]
    words += ["--epochs", "1", "--device", "cpu", "--count", "2"]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "14 labels of the table may be a model's own, uncorrected; they count as right.\n" in result.stderr


def test_a_class_that_cannot_be_judged_is_named(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = ["image,sender_id,label"]
    for number in range(18):
        draw(tmp_path / "data" / "images" / f"{number}.png", random)
        rows.append(f"{number},{number // 3},{'Body' if number < 3 else ('Dress', 'Hat')[number % 2]}")
        if number > 5:
            part = ("train", "test", "validation")[number % 3]
            draw(tmp_path / "parts" / part / ("sari", "kilt")[number % 2] / f"{number}.png", random)
    (tmp_path / "data" / "images.csv").write_text("\n".join(rows))
    draw(tmp_path / "parts" / "train" / "poncho" / "0.png", random)

    def run(*words: str) -> str:
        common = ["--out", str(tmp_path / words[0]), "--epochs", "1", "--device", "cpu"]
        result = CliRunner().invoke(main, [words[0], "custom-cnn", *words[1:], *common], catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    folds = "2 folds, stratified by class, no sender in two folds; seed 0"
    untaught = "; judged by a network that never met the class, as one fold holds all of it: Body"
    said = run("crossval", "--data", str(tmp_path / "data"), "--folds", "sender", "--count", "2")
    assert said.endswith(f"\n  measured on: {folds}{untaught}\n")
    said = run("train", "--data", str(tmp_path / "parts"))
    assert said.count("\n  no photo to judge by: poncho\n") == 2
    assert "\nThese 4 photos cannot show that 97% of its answers are right (measured: " in said
    assert ", so do not rely on its being sure. Add photos, and repeat the command with another --out.\n" in said
