"""The dataset as people have it → a checked manifest.

>>> from pathlib import Path
>>> from clothing_classifier.dataset import read_dataset
>>> manifest = read_dataset(Path("clothing-dataset"))  # doctest: +SKIP
>>> len(manifest.kept), manifest.classes[:3]  # doctest: +SKIP
(4490, ('Blazer', 'Blouse', 'Body'))
"""

from clothing_classifier.dataset.check import Findings, check_dataset, read_dataset
from clothing_classifier.dataset.manifest import DatasetError, Manifest, Photo, read_manifest

__all__ = ["DatasetError", "Findings", "Manifest", "Photo", "check_dataset", "read_dataset", "read_manifest"]
