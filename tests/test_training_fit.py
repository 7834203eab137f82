from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")

import torch

from clothing_classifier.training import fit as fitting
from clothing_classifier.training.approaches import APPROACHES, IMAGENET_MEAN, IMAGENET_STD
from clothing_classifier.training.fit import CheckpointError, Step, fit
from clothing_classifier.training.networks import Classifying, Statistics
from clothing_classifier.training.recipe import Recipe

PICTURES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8), np.arange(8) % 2


def train(
    checkpoint: Path, *, epochs: int, members: int = 1, on_step: Callable[[Step], None] = lambda step: None
) -> Classifying:
    """A small network, trained on eight pictures."""
    torch.manual_seed(0)
    network = Classifying(torch.nn.Conv2d(3, 64, 8, 8), 64, 2, Statistics(IMAGENET_MEAN, IMAGENET_STD))
    return fit(
        network,
        PICTURES,
        PICTURES,
        replace(APPROACHES["custom-cnn"].recipe, epochs=epochs, members=members, batch_size=4),
        fill=(0, 0, 0),
        seed=0,
        device=torch.device("cpu"),
        checkpoint=checkpoint,
        on_step=on_step,
    )[0]


def test_a_checkpoint_for_which_there_is_no_room_is_named_and_the_one_before_stays(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system cannot limit a file's size")
    train(tmp_path / "checkpoint.pt", epochs=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be written \(.*File too large\); make room"):
            train(tmp_path / "checkpoint.pt", epochs=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_members_begin_alike_and_the_mean_of_their_weights_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginnings: list[dict[str, torch.Tensor]] = []
    make = fitting._optimizer

    def watch(network: Classifying, recipe: Recipe) -> torch.optim.AdamW:
        beginnings.append({name: value.clone() for name, value in network.state_dict().items()})
        return make(network, recipe)

    monkeypatch.setattr(fitting, "_optimizer", watch)
    kept = [train(tmp_path / f"{members}.pt", epochs=2, members=members).state_dict() for members in (1, 2, 3)]
    for one in beginnings:
        assert all(torch.equal(value, beginnings[0][name]) for name, value in one.items())
    first, second, third = (
        torch.load(tmp_path / f"{members}.pt", weights_only=True)["average"] for members in (1, 2, 3)
    )
    for name, value in first.items():
        torch.testing.assert_close(kept[0][name], value, rtol=0, atol=0)
        torch.testing.assert_close(kept[1][name], (value + second[name]) / 2)
        torch.testing.assert_close(kept[2][name], (value + second[name] + third[name]) / 3)
    assert not torch.allclose(first["head.weight"], second["head.weight"], atol=1e-5)
    assert not torch.allclose(third["head.weight"], second["head.weight"], atol=1e-5)


def test_members_that_are_stopped_anywhere_end_with_the_same_mean(
    tmp_path: Path, stopped_in: Callable[[int, int], AbstractContextManager[Callable[[Step], None]]]
) -> None:
    whole = train(tmp_path / "whole.pt", epochs=2, members=2).state_dict()
    for epoch, number in itertools.product(range(4), (1, 2)):
        with stopped_in(epoch, number) as stop:
            train(tmp_path / "stopped.pt", epochs=2, members=2, on_step=stop)
    resumed = train(tmp_path / "stopped.pt", epochs=2, members=2).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_mean_of_members_measures_its_statistics_anew(tmp_path: Path) -> None:
    """Statistics are of the training photos, seen through the averaged weights; those held still stay."""
    torch.manual_seed(0)
    convolutions = torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Conv2d(4, 8, 4, 4)
    norms = torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(8)
    parts = [torch.nn.Sequential(*part, torch.nn.ReLU()) for part in zip(convolutions, norms, strict=True)]
    norms[0].running_mean = torch.full((4,), 0.25)
    features = torch.nn.Sequential(OrderedDict(zip(("stage0", "stage1"), parts, strict=True)))
    network, _ = fit(
        Classifying(features, 8, 2, Statistics(IMAGENET_MEAN, IMAGENET_STD)),
        PICTURES,
        PICTURES,
        replace(APPROACHES["custom-cnn"].recipe, epochs=1, members=2, batch_size=4, still=1),
        fill=(0, 0, 0),
        seed=0,
        device=torch.device("cpu"),
        checkpoint=tmp_path / "c.pt",
    )
    assert not any(module.training for module in network.modules())
    still, moved = (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    torch.testing.assert_close(still.running_mean, torch.full((4,), 0.25), rtol=0, atol=0)
    seen: list[torch.Tensor] = []
    moved.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(torch.from_numpy(PICTURES[0]).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(moved.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved.running_var, seen[0].var((0, 2, 3)), rtol=1e-3, atol=1e-5)
