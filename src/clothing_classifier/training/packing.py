"""Graph and card → the bytes of a model file. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clothing_classifier.card import CARD_KEY, DIGEST_KEY, ModelCard, seal

if TYPE_CHECKING:
    import onnx


def pack(graph: onnx.ModelProto, card: ModelCard) -> bytes:
    """Return the model file's bytes: the graph with the card inside, sealed.

    Args:
        graph: what `export` or `graft` returned; its metadata are replaced.
        card: the card.

    Returns:
        The bytes of the ``.onnx`` file.
    """
    import onnx

    sealed = onnx.ModelProto()
    sealed.CopyFrom(graph)
    onnx.helper.set_model_props(sealed, {CARD_KEY: card.to_json(), DIGEST_KEY: "0" * 64})
    sealed.producer_name = "clothing-classifier"
    sealed.producer_version = card.version
    return seal(sealed.SerializeToString())
