from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

from clothing_classifier import Classifier, ModelError, classifier, execution
from clothing_classifier.card import read_model
from clothing_classifier.cli import PROVIDERS, main
from clothing_classifier.execution import ExecutionError, available, open_session

HERE = available()


@pytest.mark.parametrize("provider", HERE)
def test_all_providers_that_are_here_say_the_same(provider: execution.Choice) -> None:
    shipped = Classifier.load(provider="cpu")
    other = Classifier.load(provider=provider)
    assert other.provider == provider
    examples = sorted((Path(__file__).parents[1] / "examples").glob("*.jpg"))
    pixels = np.stack([shipped.prepare(path) for path in examples])
    difference = np.abs(shipped.run(pixels).probabilities - other.run(pixels).probabilities)
    assert difference.max() <= execution.TOLERANCE


def test_the_cpu_is_there_and_the_last_that_is_tried() -> None:
    assert HERE[-1] == "cpu"
    assert set(PROVIDERS) == {"auto", *(provider.name for provider in execution.PROVIDERS)}


def test_what_is_not_here_is_named_with_what_to_install(tiny_model: Path) -> None:
    missing = next(provider for provider in execution.PROVIDERS if provider.name not in HERE)
    wanted = (
        f"^{re.escape(str(tiny_model))}: onnxruntime has no {missing.name} here, only .*cpu; install {missing.package}"
    )
    with pytest.raises(ModelError, match=wanted):
        Classifier.load(tiny_model, provider=missing.name)
    result = CliRunner().invoke(
        main, ["predict", str(tiny_model), "--model", str(tiny_model), "--provider", missing.name]
    )
    assert result.exit_code == 2
    assert f"install {missing.package}" in result.output


class Broken:
    """A session as a provider with a broken driver would give it."""

    def __init__(self, session: Any, spoil: Any) -> None:
        self._session, self._spoil = session, spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *given: Any) -> list[Any]:
        return [self._spoil(output) for output in self._session.run(*given)]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda output: output * np.nan, "differ from the CPU's by up to nan"),
        (lambda output: output[:, ::-1], "differ from the CPU's by up to"),
        (lambda output: output - 0.02, "differ from the CPU's by up to 0.02"),
        (lambda output: 1 / 0, "division by zero"),
    ],
    ids=["nan", "other answers", "less", "fails"],
)
def test_a_provider_that_says_something_else_is_not_used(
    spoil: Any, reason: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's own session, spoiled, stands in for a provider that this machine does not have."""
    content = read_model(tiny_model).content
    genuine = execution._open

    def opened(content: bytes, provider: execution.Provider, threads: int) -> Any:
        session = genuine(content, execution.PROVIDERS[-1], threads)
        return session if provider.name == "cpu" else Broken(session, spoil)

    monkeypatch.setattr(execution, "_open", opened)
    monkeypatch.setattr(execution, "available", lambda: ("cuda", "cpu"))
    _, chosen, refused = open_session(content, "auto", 1)
    assert chosen.name == "cpu"
    assert reason in refused["cuda"]
    with pytest.raises(ExecutionError, match=f"cuda cannot run this model .*{reason}.*; choose another"):
        open_session(content, "cuda", 1)


def test_auto_takes_one_that_works_and_a_measured_one_only_if_it_is_faster(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = read_model(tiny_model).content
    genuine = execution._open
    monkeypatch.setattr(
        execution, "_open", lambda content, provider, threads: genuine(content, execution.PROVIDERS[-1], threads)
    )
    monkeypatch.setattr(execution, "available", lambda: ("openvino", "cpu"))

    def choose(here: execution.Choice, seconds: float, on_the_cpu: float, threads: int) -> tuple[str, object]:
        times = iter([seconds, on_the_cpu])
        monkeypatch.setattr(execution, "available", lambda: (here, "cpu"))
        monkeypatch.setattr(execution, "_measure", lambda *_: next(times))
        _, chosen, refused = open_session(content, "auto", threads)
        return chosen.name, refused

    slower = "it is slower than the CPU"
    assert choose("openvino", 0.1, 0.2, 1) == ("openvino", {})
    assert choose("openvino", 0.2, 0.1, 1) == ("cpu", {"openvino": slower})
    # What is beside the cores must outrun all of them, also where one thread computes each photo.
    monkeypatch.setattr(execution, "available_cores", lambda: 8)
    assert choose("coreml", 0.1, 0.2, 8) == ("coreml", {})
    assert choose("coreml", 0.1, 0.2, 1) == ("cpu", {"coreml": slower})
    assert choose("coreml", 0.2, 0.15, 16) == ("cpu", {"coreml": slower}), "more threads than cores are no faster"
    assert choose("directml", 0.02, 0.2, 1) == ("directml", {})
    assert choose("openvino", 0.1, 0.2, 1) == ("openvino", {})
    monkeypatch.setattr(execution, "available", lambda: ("openvino", "cpu"))
    assert open_session(content, "openvino", 1)[1].name == "openvino", "what is asked for is not measured"
    cuda = replace(execution.PROVIDERS[0])
    monkeypatch.setattr(execution, "available", lambda: (cuda.name, "cpu"))
    assert open_session(content, "auto", 1)[1].name == "cuda"


def test_onnxruntime_says_which_it_has() -> None:
    registered = {provider.registered for provider in execution.PROVIDERS if provider.name in HERE}
    assert registered <= set(onnxruntime.get_available_providers())


def test_a_classifier_keeps_to_what_its_provider_can_do(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's own session stands in for that of a provider which computes one batch at a time, beside the cores."""
    running, together, sizes, asked = 0, [], [], []

    class Counted:
        def __init__(self, session: Any) -> None:
            self._session = session

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def run(self, names: Any, feed: dict[str, Any]) -> Any:
            nonlocal running
            running += 1
            together.append(running)
            sizes.append(len(feed["pixels"]))
            time.sleep(0.005)
            found = self._session.run(names, feed)
            running -= 1
            return found

    def opened(content: bytes, choice: execution.Choice, threads: int) -> Any:
        asked.append(threads)
        session, provider, _ = open_session(content, "cpu", threads)
        refused: dict[execution.Choice, str] = {"cuda": "no driver"}
        return Counted(session), replace(provider, name="directml", serial=True, on_cores=False), refused

    monkeypatch.setattr(classifier, "open_session", opened)
    loaded = Classifier.load(tiny_model, threads=3)
    assert (loaded.provider, loaded.on_cores, loaded.refused, asked) == ("directml", False, {"cuda": "no driver"}, [3])
    photos = [Image.new("RGB", (8, 12), "red")] * (2 * classifier.BATCH + 1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(loaded.predict, photos))
    assert set(together) == {1}
    sizes.clear()
    loaded.predict_batch(photos)
    assert sizes == [classifier.BATCH, classifier.BATCH, 1]


def test_one_photo_waits_for_no_other_provider(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def opened(content: bytes, choice: execution.Choice, threads: int) -> Any:
        asked.append(choice)
        return open_session(content, choice, threads)

    monkeypatch.setattr(classifier, "open_session", opened)
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos" / "red.png"
    Image.new("RGB", (9, 9), "red").save(photo)
    for words in ([photo], [photo.parent], [photo, photo], [photo, "--provider", "auto"]):
        result = CliRunner().invoke(main, ["predict", *map(str, words), "--model", str(tiny_model)])
        assert result.exit_code == 0, result.output
    assert asked == ["cpu", "auto", "auto", "cpu"]
