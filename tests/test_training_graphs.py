"""A GPU's recordings of a network: the same function, the same gradients, and nothing changed by recording."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from clothing_classifier.training.graphs import record

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="recordings are of a CUDA GPU's work; none here")


def test_recordings_are_the_network() -> None:
    device = torch.device("cuda")
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
    network: nn.Module = nn.Sequential(first, nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for parameter in first.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    shapes = [(4, 3, 16, 12), (3, 3, 8, 6)]
    precision = torch.autocast("cuda", torch.bfloat16, enabled=False, cache_enabled=False)
    recorded, plain = record(network, shapes, device, precision), copy.deepcopy(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    for shape in [*shapes, *shapes]:
        pixels = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():  # what it learns later must count, too
            for one in (network, plain):
                one.get_parameter("5.weight").add_(0.1)
        found, wanted = recorded(pixels), plain(pixels)
        torch.testing.assert_close(found, wanted)
        for one, logits in ((network, found), (plain, wanted)):
            one.zero_grad(set_to_none=True)
            logits.square().sum().backward()
        for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
            assert (ours.grad is None) == (theirs.grad is None)
            if ours.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad)
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], value)
