"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import onnx

    from clothing_classifier.card import ModelCard
    from clothing_classifier.dataset import Findings, Manifest
    from clothing_classifier.training.fit import Step

# A shell's background job ignores Ctrl-C, and so would the commands that the tests start and stop by it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that does other work, or this one with several tests at once, may be slow at any time.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SHARED = Path(os.environ.get("CLOTHING_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture
def stopped_in() -> Callable[[int, int], AbstractContextManager[Callable[[Step], None]]]:
    """A function: a context that gives a callback for training, which must be stopped by it in that epoch and step."""

    class Stopped(Exception):
        pass

    @contextmanager
    def stopped_in(epoch: int, number: int) -> Iterator[Callable[[Step], None]]:
        def stop(step: Step) -> None:
            if (step.epoch, step.step) == (epoch, number):
                raise Stopped

        with pytest.raises(Stopped):
            yield stop

    return stopped_in


@pytest.fixture(scope="session")
def shared_dataset() -> Path:
    """The folder of the Clothing dataset beside the checkout: ``images/`` and ``images.csv``."""
    folder = SHARED / "clothing-dataset"
    if not (folder / "images.csv").is_file():
        pytest.skip(f"needs the Clothing dataset at {folder}")
    return folder


@pytest.fixture(scope="session")
def shared_findings(shared_dataset: Path) -> Findings:
    """What a check of `shared_dataset` finds; every photo in it is opened once."""
    from clothing_classifier.dataset import check_dataset

    return check_dataset(shared_dataset)


@pytest.fixture(scope="session")
def shared_manifest(shared_findings: Findings) -> Manifest:
    """The checked manifest of `shared_dataset`."""
    return shared_findings.manifest


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """The folder of pretrained backbones beside the checkout, as safetensors."""
    folder = SHARED / "pretrained"
    if not folder.is_dir():
        pytest.skip(f"needs pretrained backbones at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_card() -> ModelCard:
    """The card of `tiny_model`."""
    from clothing_classifier.card import ModelCard
    from clothing_classifier.resizing import Resizing

    return ModelCard(
        name="tiny",
        labels=("red", "green", "blue"),
        resizing=Resizing(height=12, width=8, mode="pad", fill=(85, 85, 85)),
        threshold=0.6,
        temperature=1.5,
        promise={"accuracy": 0.97, "share": 0.41, "measured_on": "the validation part, 64 photos"},
        metrics={
            "test": {
                "protocol": "one split; test part, seed 0",
                "photos": 64,
                "accuracy": 0.9063,
                "intervals": {"accuracy": [0.85, 0.95]},
                "per_class": {"red": {"precision": 0.91, "recall": 0.82, "f1": 0.8627, "photos": 22}},
                "confusion": [[1234]],
            }
        },
        data={"digest": "12ab", "photos": 640, "classes": {"red": 220, "green": 210, "blue": 210}, "seed": 0},
        training={"approach": "tiny", "command": "clothing train tiny --data photos --out run", "seconds": 3},
        weights={"source": "none", "licence": "not applicable: made by hand", "sha256": None},
        licence="Apache-2.0",
        version="0.1.0",
        commit=None,
        created="2026-01-02T03:04:05+00:00",
    )


@pytest.fixture(scope="session")
def tiny_graph() -> onnx.ModelProto:
    """A model of three classes that are the picture's colours; it keeps the contract of a model file."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    initializers = [
        numpy_helper.from_array(np.float32(255), "scale"),
        # Channel by channel, a little of the other colours against it; 1x1, as a network's last layer.
        numpy_helper.from_array((9 * np.eye(3) - 3).astype(np.float32)[:, :, None, None], "weight"),
    ]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["channels"], ["maps"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["maps", "weight"], ["evidence"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
        helper.make_node("GlobalAveragePool", ["evidence"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["photos", 12, 8, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["photos", 3]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["photos", 3]),
            helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["photos", 3, 3, 2]),
        ],
        initializers,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


@pytest.fixture(scope="session")
def pack_model() -> Callable[[onnx.ModelProto, str], bytes]:
    """A function: graph and card's JSON → the sealed content of a model file."""
    import onnx

    from clothing_classifier.card import CARD_KEY, DIGEST_KEY, seal

    def pack(graph: onnx.ModelProto, card: str) -> bytes:
        model = onnx.ModelProto()
        model.CopyFrom(graph)
        onnx.helper.set_model_props(model, {CARD_KEY: card, DIGEST_KEY: "0" * 64})
        return seal(model.SerializeToString())

    return pack


@pytest.fixture(scope="session")
def tiny_model(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_graph: onnx.ModelProto,
    tiny_card: ModelCard,
    pack_model: Callable[[onnx.ModelProto, str], bytes],
) -> Path:
    """A model file whose classes are the colours red, green and blue; a grey picture is "not sure"."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(pack_model(tiny_graph, tiny_card.to_json()))
    return path


@pytest.fixture
def loopback() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], str]]:
    """A function: what answers requests → the address of an HTTP server on this machine that answers so."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that goes away in the midst of an answer

    def serve(answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer(self)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = stack.enter_context(Server(("127.0.0.1", 0), Handler))
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    with ExitStack() as stack:
        yield serve
