"""Whether a model is faster in int8 than in float32 on this processor, and what that does to its answers.

    python benchmarks/quantised.py PHOTOS --out quantised.json

The model is quantised as onnxruntime's documentation advises for networks of convolutions: statically, QDQ, weights a
channel at a time, ranges from photos; once its convolutions alone, once all that can be. Needs the extra `own`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from machine import describe
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from photos import read_photos

from clothing_classifier.bulk import find_photos
from clothing_classifier.card import read_model
from clothing_classifier.classifier import BATCH, Classifier
from clothing_classifier.machine import available_cores

WAYS = {"float32": None, "int8, convolutions": ["Conv"], "int8, all": ["Conv", "Mul", "Add", "Sigmoid", "Gemm"]}
OUTPUT = "probabilities"


class Ranges(CalibrationDataReader):  # type: ignore[misc]
    """Batches of photos, for the quantiser to see what values each layer takes."""

    def __init__(self, pixels: Any) -> None:
        self.batches: Iterator[Any] = iter([pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or nothing."""
        batch = next(self.batches, None)
        return None if batch is None else {"pixels": batch}


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photos, 400 or more")
    parser.add_argument("--model", type=Path, help="a model file; by default the one that ships")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    classifier = Classifier.load(options.model)
    paths = list(find_photos([str(options.photos)]))
    step = max(1, len(paths) // 400)
    spread = (path for start in range(step) for path in paths[start::step])  # those between stand in for broken ones
    pixels = np.stack(list(islice(read_photos(spread, classifier.prepare), 400)))
    if len(pixels) < BATCH:
        parser.error(f"{options.photos}: has {len(pixels)} photos that can be read; give {BATCH} or more")
    with tempfile.TemporaryDirectory() as folder:
        sessions = {way: open_session(path) for way, path in quantise(options.model, pixels[::4], Path(folder)).items()}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, session in sessions.items():
            start = time.perf_counter()
            session.run([OUTPUT], {"pixels": pixels[:BATCH]})
            seconds[way].append((time.perf_counter() - start) / BATCH)
    asked = np.delete(pixels, np.s_[::4], axis=0)  # not those that the ranges are from
    answers = {way: answer(session, asked) for way, session in sessions.items()}
    result = {
        "machine": describe(("clothing-classifier", "onnxruntime", "onnx")),
        "model": classifier.card.name,
        "commit": classifier.card.commit,
        "photos": len(asked),
        "ways": {
            way: {
                "ms_a_photo": round(1000 * median(seconds[way]), 2),
                "same_class": round(float((found.argmax(1) == answers["float32"].argmax(1)).mean()), 4),
                "largest_difference": round(float(np.abs(found - answers["float32"]).max()), 4),
            }
            for way, found in answers.items()
        },
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def quantise(model: Path | None, pixels: Any, folder: Path) -> dict[str, str]:
    """Write the model in float32 and in int8, and return the files."""
    graph = onnx.load_from_string(read_model(model).content)
    # What is stored as float16 is cast when the model is loaded; the quantiser wants to see the weights themselves.
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    nodes = []
    for node in graph.graph.node:
        tensor = weights.get(node.input[0])
        if node.op_type == "Cast" and tensor is not None and tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    whole, prepared = folder / "float32.onnx", folder / "prepared.onnx"
    onnx.save(graph, whole)
    quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
    files = {}
    for way, kinds in WAYS.items():
        files[way] = str(whole if kinds is None else folder / f"{len(files)}.onnx")
        if kinds is not None:
            quantize_static(
                str(prepared),
                files[way],
                Ranges(pixels),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=kinds,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    return files


def open_session(path: str) -> Any:
    """Open a model as the classifier does on a CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(session: Any, pixels: Any) -> Any:
    """Return the probabilities of all photos."""
    batches = range(0, len(pixels), BATCH)
    return np.concatenate([session.run([OUTPUT], {"pixels": pixels[at : at + BATCH]})[0] for at in batches])


if __name__ == "__main__":
    main()
