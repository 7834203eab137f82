"""How strange a photo is: how much of its embedding lies outside of what the photos that taught span.

A softmax names whatever it is shown, a sofa too, and often with confidence. The embeddings of photos of garments lie
near a subspace of few dimensions; those of other things do not. What is left of an embedding outside of it, the
residual, tells the two apart, and no other thing need be seen for it (Wang et al., 2022, "ViM: Out-of-distribution with
virtual-logit matching", https://arxiv.org/abs/2203.10807). Here it makes answers less certain and never another
class: beyond the residual of most garments, the temperature grows with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

DIMENSIONS: Final = 128
"""Of the subspace. On EfficientNet-B0 fewer tell a little less, and twice as many hardly more."""

FAMILIAR: Final = 0.9
"""Share of unseen photos of garments whose answers stay as they are."""

LEAST: Final = 0.1
"""Share of the embeddings' variance that the unit is at least: few photos, or many that are there twice, leave next to
nothing outside of their subspace, and what is measured in that would jump from one part of the photos to another."""

Embeddings = npt.NDArray[np.float32]
Residuals = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Subspace:
    """What the embeddings of the photos that taught span, but for a little.

    Attributes:
        mean: of these embeddings, ``float32 [D]``.
        basis: orthonormal but for the rounding, of values that float16 holds, as `attach` stores them so:
            ``float32 [K, D]``.
        unit: mean squared length of what of these embeddings lies outside, or more, see `LEAST`.
    """

    mean: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float32]
    unit: float

    def measure(self, embeddings: Embeddings) -> Residuals:
        """Return the squared length of what of each embedding, ``float32 [N, D]``, lies outside, ``float32 [N]``.

        It is given in units of the photos that taught, as networks' embeddings differ in length.
        """
        return np.asarray(_measure_outside(embeddings, self.mean, self.basis) / self.unit, np.float32)


def fit_subspace(embeddings: Embeddings) -> Subspace:
    """Return the subspace in which embeddings vary most: their first principal components.

    Args:
        embeddings: of the photos that taught, ``float32 [N, D]``.

    Returns:
        A subspace of `DIMENSIONS`, or of half as many as there are photos or features, where these are few.
    """
    from scipy.linalg import eigh

    count, size = embeddings.shape
    dimensions = min(DIMENSIONS, count // 2, size // 2)
    mean = embeddings.mean(0)
    centred = embeddings - mean
    largest = (size - dimensions, size - 1)
    found = eigh(centred.T @ centred, subset_by_index=largest)[1].T if dimensions else np.empty((0, size))
    basis = np.ascontiguousarray(found, np.float16).astype(np.float32)
    unit = float(_measure_outside(embeddings, mean, basis).mean())
    least = LEAST * float(np.square(centred).sum(1).mean())
    return Subspace(mean, basis, max(unit, least) or 1.0)


def _measure_outside(
    embeddings: Embeddings, mean: npt.NDArray[np.float32], basis: npt.NDArray[np.float32]
) -> Residuals:
    centred = embeddings - mean
    outside = np.square(centred).sum(1) - np.square(centred @ basis.T).sum(1)
    return np.asarray(outside.clip(min=0), np.float32)


def choose_limit(residuals: Residuals) -> float:
    """Return the residual that a share `FAMILIAR` of photos stays below, which the network did not learn from."""
    return max(0.01, float(np.quantile(residuals, FAMILIAR)))  # of photos that are all alike it would be 0


def doubt(logits: npt.NDArray[Any], residuals: Residuals, limit: float) -> npt.NDArray[np.float32]:
    """Return logits, ``[N, classes]``, divided by the residual over the limit where it is above."""
    return np.asarray(logits / np.maximum(1, residuals / limit)[:, None], np.float32)


def attach(graph: onnx.GraphProto, subspace: Subspace, limit: float) -> None:
    """Let a graph doubt its answers to strange photos as `doubt` does.

    Args:
        graph: whose ``probabilities`` are a softmax of logits, and that has an ``embedding``; changed in place.
        subspace: of the embedding.
        limit: as `choose_limit` gives it.

    Raises:
        ValueError: the graph has no such form.
    """
    from onnx import TensorProto, helper, numpy_helper

    softmax = next((node for node in graph.node if "probabilities" in node.output), None)
    if softmax is None or softmax.op_type != "Softmax":
        raise ValueError("the probabilities are not those of a softmax")
    constants = {
        "mean": subspace.mean,
        "basis.half": np.ascontiguousarray(subspace.basis.T, np.float16),
        "limit": np.float32(limit * subspace.unit),
        "one": np.float32(1),
        "axis": np.array([1], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), f"strange.{k}") for k, v in constants.items())
    steps = [
        ("Sub", ["embedding", "strange.mean"], "centred"),
        ("MatMul", ["strange.centred", "strange.basis"], "inside"),
        ("ReduceSumSquare", ["strange.centred", "strange.axis"], "whole"),
        ("ReduceSumSquare", ["strange.inside", "strange.axis"], "known"),
        ("Sub", ["strange.whole", "strange.known"], "residual"),
        ("Div", ["strange.residual", "strange.limit"], "ratio"),
        ("Max", ["strange.ratio", "strange.one"], "doubt"),
        ("Div", [softmax.input[0], "strange.doubt"], "logits"),
    ]
    nodes = [helper.make_node(kind, inputs, [f"strange.{output}"]) for kind, inputs, output in steps]
    nodes.insert(0, helper.make_node("Cast", ["strange.basis.half"], ["strange.basis"], to=TensorProto.FLOAT))
    softmax.input[0] = "strange.logits"
    rest = [node for node in graph.node if node is not softmax]
    last = helper.make_node("Identity", [], [])
    last.CopyFrom(softmax)
    del graph.node[:]
    graph.node.extend([*rest, *nodes, last])
