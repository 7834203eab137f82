"""A network's forward and backward pass as CUDA graphs: one call each, in place of a thousand.

A step of a light network is hundreds of kernels of a few microseconds each, and the processor cannot call them as fast
as a GPU is through with them. Recorded once and replayed, they cost it one call (Nguyen et al., 2021, "Accelerating
PyTorch with CUDA graphs", https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class _Recorded(nn.Module):
    """A network within another module, whose forward pass a recording replaces; its own stays as it is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels)
        return logits


def record(
    network: nn.Module, shapes: Iterable[tuple[int, int, int, int]], device: torch.device, precision: torch.autocast
) -> Callable[[Tensor], Tensor]:
    """Record what a network does to batches of some shapes, and its gradients.

    Args:
        network: on the GPU, in the mode that it shall learn in; its parameters and statistics are the same afterwards,
            and the recordings work with those that it has when they are replayed.
        shapes: of the batches that will come, ``[N, 3, H, W]``.
        device: the GPU.
        precision: what it shall run in, without a cache.

    Returns:
        The same function as the network's, for batches of these shapes alone, with their channels last.
    """
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    recordings: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}
    for shape in shapes:
        example = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
        with precision:
            recorded: Any = torch.cuda.make_graphed_callables(_Recorded(network), (example,), allow_unused_input=True)
        recordings[shape] = recorded
    network.load_state_dict(kept)  # recording tries the network on these examples first
    for parameter in network.parameters():
        parameter.grad = None
    return lambda pixels: recordings[tuple(pixels.shape)](pixels)
