"""Graph and card → the bytes of a model file. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from clothing_classifier.card import CARD_KEY, DIGEST_KEY, PHOTOS_KEY, ModelCard, mark, seal

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

_LARGE: Final = 1024


def pack(graph: onnx.ModelProto, card: ModelCard, photos: Iterable[str]) -> bytes:
    """Return the model file's bytes: the graph with the card inside, sealed.

    Args:
        graph: what `export` or `graft` returned; its metadata are replaced.
        card: the card.
        photos: SHA-256 of each photo that the model was made with, in hexadecimal, or the `mark` of it.

    Returns:
        The bytes of the ``.onnx`` file.
    """
    import onnx

    sealed = onnx.ModelProto()
    sealed.CopyFrom(graph)
    marks = "".join(sorted({mark(photo) for photo in photos}))
    onnx.helper.set_model_props(sealed, {CARD_KEY: card.to_json(), PHOTOS_KEY: marks, DIGEST_KEY: "0" * 64})
    sealed.producer_name = "clothing-classifier"
    sealed.producer_version = card.version
    return seal(sealed.SerializeToString())


def store_in_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Store large weights as float16, each with a node that casts it back: half the file, computed in float32 still.

    The runtime casts once, when it loads the model.

    Args:
        graph: what `export` returned; it is not changed.

    Returns:
        The same graph, with the weights of convolutions and linear layers stored so. What has fewer than 1,024 values,
        and what float16 cannot hold, stays.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    halved = onnx.ModelProto()
    halved.CopyFrom(graph)
    weights = {node.input[1] for node in halved.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
    casts = []
    for tensor in halved.graph.initializer:
        values = numpy_helper.to_array(tensor)
        large = tensor.name in weights and values.dtype == np.float32 and values.size >= _LARGE
        if not large or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = list(halved.graph.node)
    del halved.graph.node[:]
    halved.graph.node.extend([*casts, *nodes])
    return halved
