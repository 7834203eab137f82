"""Network → one ``.onnx`` file, which is refused unless it computes what the network computes."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clothing_classifier.training.graft import OUTPUTS, TOLERANCE
from clothing_classifier.training.networks import Classifying

if TYPE_CHECKING:
    import onnx

_OPSET = 18


class ExportError(Exception):
    """The exported file does not compute what the network computes, and is not written."""


class Deployed(nn.Module):
    """The network as the model file holds it: ``uint8`` pixels in, probabilities, embedding and evidence out."""

    def __init__(self, network: Classifying, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``uint8 [N, H, W, 3]`` to ``[N, classes]``, ``[N, D]`` and ``[N, classes, h, w]``.

        The softmax of the evidence's mean over the map is the probabilities: each cell says how much it adds.
        """
        maps = self.network.embed(pixels.permute(0, 3, 1, 2).float())
        embedding = maps.mean((2, 3))
        weight = self.network.head.weight / self.temperature
        bias = self.network.head.bias / self.temperature
        evidence = F.conv2d(maps, weight[:, :, None, None], bias)
        return F.linear(embedding, weight, bias).softmax(1), embedding, evidence


def export(network: Classifying, temperature: float, pixels: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """Convert a trained network, and check the result against it.

    Args:
        network: in evaluation mode.
        temperature: what the logits are divided by before the softmax.
        pixels: a few prepared photos, ``uint8 [N, H, W, 3]`` with N ≥ 2, on which both must agree.

    Returns:
        The ONNX graph, without a card.

    Raises:
        ExportError: an output differs from the network's.
    """
    deployed = Deployed(network, temperature).cpu().eval()
    # The exporter traces; contiguous parameters keep it from writing layout changes into the graph.
    deployed = deployed.to(memory_format=torch.contiguous_format)
    graph = _trace(deployed, torch.from_numpy(pixels[:2]))
    check(graph, deployed, pixels)
    return graph


def check(graph: onnx.ModelProto, deployed: Deployed, pixels: npt.NDArray[np.uint8]) -> None:
    """Compare the graph's outputs with the network's, in a batch and one by one.

    Raises:
        ExportError: they differ by more than rounding.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        wanted = [output.numpy() for output in deployed(torch.from_numpy(pixels))]
    whole = session.run(OUTPUTS, {"pixels": pixels})
    single = session.run(OUTPUTS, {"pixels": pixels[-1:]})
    for name, expected, got, alone in zip(OUTPUTS, wanted, whole, single, strict=True):
        scale = float(np.abs(expected).max()) or 1.0
        for found, reference in ((got, expected), (alone, expected[-1:])):
            if found.shape != reference.shape:
                raise ExportError(f"{name}: the file gives the shape {found.shape}, the network {reference.shape}")
            difference = float(np.abs(found - reference).max()) / scale
            if not difference <= TOLERANCE:  # also refuses NaN
                raise ExportError(
                    f"{name}: the exported file differs from the network by {difference:.1e} of the largest value "
                    f"(at most {TOLERANCE:.0e} is allowed); nothing was written"
                )


def _trace(deployed: Deployed, example: Tensor) -> onnx.ModelProto:
    # The exporter reports its progress as warnings and log lines that say nothing to the user.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                deployed,
                (example,),
                input_names=["pixels"],
                output_names=list(OUTPUTS),
                dynamic_shapes={"pixels": {0: torch.export.Dim("photos", min=1)}},
                opset_version=_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    for node in graph.graph.node:  # stack traces with paths of this machine have no place in the file
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.initializer, *graph.graph.input, *graph.graph.output):
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    return graph
