from __future__ import annotations

import itertools

import pytest

pytest.importorskip("torch", reason="needs the extra train")

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
