"""Where a model is computed: by the CPU, or by another of the execution providers that onnxruntime has here.

Which providers there are depends on the package that is installed in onnxruntime's place: ``onnxruntime-gpu`` has
CUDA, ``onnxruntime-directml`` DirectML (Windows), ``onnxruntime-openvino`` OpenVINO; the one for macOS has CoreML.
Each computes in its own way and rounds in its own way, and a driver may be broken. So one that is not the CPU is held
against the CPU when a model is loaded, on a picture of noise, and is used only if both say the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from clothing_classifier.machine import available_cores

Choice = Literal["auto", "cpu", "cuda", "directml", "coreml", "openvino"]
"""``auto`` is the first of `PROVIDERS` that is here, works, and says what the CPU says."""

TOLERANCE: Final = 0.01
"""Largest difference between a provider's probabilities and the CPU's; rounding stays below a tenth of it."""


class ExecutionError(Exception):
    """A model cannot be computed as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One of onnxruntime's execution providers.

    Attributes:
        name: what people call it.
        registered: what onnxruntime calls it.
        package: what must be installed in place of ``onnxruntime`` to have it.
        options: what it is opened with.
        measured: whether ``auto`` takes it only if it is faster than the CPU provider, by a few batches.
        on_cores: whether it computes on the CPU's cores.
        serial: whether it computes one batch at a time only.
    """

    name: Choice
    registered: str
    package: str
    options: dict[str, str] = field(default_factory=dict)
    measured: bool = False
    on_cores: bool = False
    serial: bool = False


PROVIDERS: Final[tuple[Provider, ...]] = (
    # An exhaustive search for algorithms would begin anew with each size of a batch; TF32 rounds to ten bits.
    Provider(
        "cuda", "CUDAExecutionProvider", "onnxruntime-gpu", {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    ),
    Provider("directml", "DmlExecutionProvider", "onnxruntime-directml", measured=True, serial=True),
    Provider("coreml", "CoreMLExecutionProvider", "onnxruntime", {"ModelFormat": "MLProgram"}, measured=True),
    Provider(
        "openvino",
        "OpenVINOExecutionProvider",
        "onnxruntime-openvino",
        {"device_type": "CPU"},
        measured=True,
        on_cores=True,
    ),
    Provider("cpu", "CPUExecutionProvider", "onnxruntime", on_cores=True),
)
"""In the order in which ``auto`` tries them."""

_CPU: Final = PROVIDERS[-1]
_OUTPUT: Final = "probabilities"
_BATCH: Final = 4
_ROUNDS: Final = 3


def available() -> tuple[Choice, ...]:
    """Return the names of the providers that the installed onnxruntime has, in the order in which they are tried."""
    here = onnxruntime.get_available_providers()
    return tuple(provider.name for provider in PROVIDERS if provider.registered in here)


def open_session(content: bytes, choice: Choice, threads: int) -> tuple[Any, Provider, dict[Choice, str]]:
    """Open a model with the provider chosen.

    Args:
        content: the model file's bytes.
        choice: which provider.
        threads: how many threads the CPU computes a batch with.

    Returns:
        onnxruntime's session, the provider that it computes with, and why those are not used that ``auto`` has tried
        before it, by name.

    Raises:
        ExecutionError: the provider is not here, does not work, or does not say what the CPU says.
        Exception: onnxruntime's own, where not even the CPU can run the model.
    """
    if choice == "cpu":
        return _open(content, _CPU, threads), _CPU, {}
    here = available()
    if choice != "auto" and choice not in here:
        package = next(provider.package for provider in PROVIDERS if provider.name == choice)
        raise ExecutionError(
            f"onnxruntime has no {choice} here, only {', '.join(here)}; install {package} in its place, "
            "or choose another"
        )
    wanted = [provider for provider in PROVIDERS if provider.name in (here if choice == "auto" else (choice,))]
    if wanted == [_CPU]:
        return _open(content, _CPU, threads), _CPU, {}
    refused: dict[Choice, str] = {}
    reference = _open(content, _CPU, threads)
    pixels = _noise(reference)
    for provider in wanted:
        if provider is _CPU:
            break
        try:
            session = _open(content, provider, threads)
            _compare(session, reference, provider, pixels)
        except Exception as error:  # a provider may fail in any way
            if choice != "auto":
                raise ExecutionError(f"{choice} cannot run this model ({first_line(error)}); choose another") from error
            refused[provider.name] = first_line(error)
            continue
        if choice != "auto" or not provider.measured or _is_faster(session, reference, provider, threads, pixels):
            return session, provider, refused
        refused[provider.name] = "it is slower than the CPU"
    return reference, _CPU, refused


def _open(content: bytes, provider: Provider, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, and told once
    options.enable_mem_pattern = provider.name != "directml"  # which has none
    # Threads that spin while they wait would take the cores from those that decode the next photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The checks of the card are of ONNX; without this the runtime might read the bytes as another format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    given = dict(provider.options)
    if provider.name == "openvino":
        given["num_of_threads"] = str(threads)
    wanted: list[Any] = [(provider.registered, given)] if provider is not _CPU else []
    session = onnxruntime.InferenceSession(
        content,
        options,
        providers=[*wanted, _CPU.registered],
        enable_fallback=0,  # with its fallback, the runtime would print errors and try again in the same way
    )
    if session.get_providers()[0] != provider.registered:
        raise ExecutionError("it could not be started")
    return session


def _noise(session: Any) -> npt.NDArray[np.uint8]:
    (given,) = session.get_inputs()
    return np.random.default_rng(0).integers(0, 256, (_BATCH, *given.shape[1:]), np.uint8)


def _compare(session: Any, reference: Any, provider: Provider, pixels: npt.NDArray[np.uint8]) -> None:
    found, wanted = (
        np.asarray(opened.run([_OUTPUT], {opened.get_inputs()[0].name: pixels})[0]) for opened in (session, reference)
    )
    difference = float(np.abs(found - wanted).max())
    if not difference <= TOLERANCE:  # also refuses NaN
        raise ExecutionError(f"its probabilities differ from the CPU's by up to {difference:.2g}")


def _is_faster(session: Any, reference: Any, provider: Provider, threads: int, pixels: npt.NDArray[np.uint8]) -> bool:
    """Say whether a provider makes more photos a second than the CPU: all of its cores, whatever ``threads`` are."""
    elsewhere = 1.0 if provider.on_cores else min(1.0, threads / available_cores())
    return _measure(session, pixels) < _measure(reference, pixels) * elsewhere


def _measure(session: Any, pixels: npt.NDArray[np.uint8]) -> float:
    """Return the seconds that the fastest of a few batches takes."""
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        session.run([_OUTPUT], {session.get_inputs()[0].name: pixels})
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def first_line(error: Exception) -> str:
    """Return the first line of an error, short enough for one line of a terminal."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
