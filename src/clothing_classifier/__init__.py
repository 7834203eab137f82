"""Photos of garments in, categories out.

>>> from clothing_classifier import Classifier
>>> classifier = Classifier.load()  # doctest: +SKIP
>>> classifier.predict("photo.jpg").answer  # doctest: +SKIP
'Dress'
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes longer to import than all else here, and no Ctrl-C is caught until then
if TYPE_CHECKING:
    from typing import Any

    from clothing_classifier.card import ModelCard, ModelError
    from clothing_classifier.classifier import Classifier, Output, Prediction
    from clothing_classifier.images import Limits, PhotoError

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Limits",
    "ModelCard",
    "ModelError",
    "Output",
    "PhotoError",
    "Prediction",
    "__version__",
]

_ROOMS = {
    "Classifier": "classifier",
    "Limits": "images",
    "ModelCard": "card",
    "ModelError": "card",
    "Output": "classifier",
    "PhotoError": "images",
    "Prediction": "classifier",
}


def __getattr__(name: str) -> Any:
    # Importing the package, as `clothing --help` does, must not wait for numpy, Pillow and onnxruntime.
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
