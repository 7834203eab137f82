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
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(7):
            pixels = random.integers(0, 256, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    (tmp_path / "data" / "sari" / "7.png").write_bytes(b"torn")
    (tmp_path / "data" / "sari" / "8.png").write_bytes((tmp_path / "data" / "sari" / "0.png").read_bytes())
    command, *options = words
    common = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu"]
    result = CliRunner().invoke(main, [command, "custom-cnn", *options, *common], catch_exceptions=False)
    assert result.exit_code == 0
    said = result.stdout
    assert "Left out: sari/7.png (unreadable: " in said
    assert "Left out in all: unreadable (1), exact copy (1); manifest.csv names each photo and the reason." in said
