from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result

from clothing_classifier import __version__
from clothing_classifier.card import ModelCard, read_model
from clothing_classifier.cli import main, printable

Pack = Callable[[onnx.ModelProto, str], bytes]


def info(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["info", *map(str, arguments)])


def test_text_tells_all_that_one_must_know(tiny_model: Path) -> None:
    result = info(tiny_model)
    assert result.exit_code == 0
    for fact in (
        "tiny",
        str(tiny_model),
        f"{tiny_model.stat().st_size / 1e6:.1f} MB",
        hashlib.sha256(tiny_model.read_bytes()).hexdigest(),
        "12 × 8 pixels, proportions kept",
        "3: red, green, blue",
        "below a probability of 0.6",
        "97.0% of the answers are right",
        "the validation part, 64 photos",
        "41.0% of them got an answer",
        "not applicable: made by hand",
        "Apache-2.0",
        "clothing train tiny --data photos --out run",
        "12ab",
        "accuracy 0.85 to 0.95",
        "0.8627",
        "2026-01-02T03:04:05+00:00",
    ):
        assert fact in " ".join(result.stdout.split()), fact
    assert "1234" not in result.stdout  # the confusion matrix is for programs
    assert max(map(len, result.stdout.splitlines())) <= 100 + len(str(tiny_model))


def test_json_is_the_card_and_the_file(tiny_model: Path) -> None:
    values = json.loads(info(tiny_model, "--format", "json").stdout)
    content = tiny_model.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    execution = values.pop("execution")
    assert execution["provider"] in execution["available"]
    assert "cpu" in execution["available"]
    assert execution["error"] is None
    assert values.pop("file") == {"path": str(tiny_model), "bytes": len(content), "sha256": digest}
    assert ModelCard.from_json(json.dumps(values)) == read_model(tiny_model).card


def shown(path: Path, model: bytes) -> list[str]:
    path.write_bytes(model)
    result = info(path)
    assert result.exit_code == 0
    return result.stdout.splitlines()


def test_the_model_is_named_as_other_commands_name_it(tiny_model: Path) -> None:
    assert info("--model", tiny_model).stdout == info(tiny_model).stdout
    twice = info(tiny_model, "--model", tiny_model)
    assert twice.exit_code == 2
    assert "name the model once" in twice.stderr


def test_several_things_are_told_one_by_one(
    tmp_path: Path, tiny_graph: onnx.ModelProto, tiny_card: ModelCard, pack_model: Pack
) -> None:
    training = {
        "recipe": {"epochs": 9, "augmentation": {"flip": 0.5}},
        "crossvals": [{"protocol": "random", "commit": "12"}, {"protocol": "sender", "commit": "12"}],
    }
    folds = [{"fold": number, "photos": 10 + number} for number in range(3)]
    by = {"kids": {"adults": {"photos": 3}, "kids": {"photos": 4}}}
    metrics = {"sender folds": {"photos": 33, "folds": folds, "by": by}}
    card = replace(tiny_card, training=training, metrics=metrics)
    lines = shown(tmp_path / "model.onnx", pack_model(tiny_graph, card.to_json()))
    text = "\n".join(lines)
    assert "\n  recipe     epochs 9, augmentation flip 0.5\n" in text
    assert "\n  crossvals\n    protocol random, commit 12\n    protocol sender, commit 12\n" in text
    assert "\n  folds\n    fold 0, photos 10\n    fold 1, photos 11\n    fold 2, photos 12\n" in text
    assert "\n  by\n    kids: adults: photos 3\n    kids: kids: photos 4\n" in text
    assert max(map(len, lines)) <= 100 + len(str(tmp_path))


def test_names_of_classes_are_shown_as_they_are(
    tmp_path: Path, tiny_graph: onnx.ModelProto, tiny_card: ModelCard, pack_model: Pack
) -> None:
    classes = {"maxi_dress": 12, "نیم\u200cتنه": 3}
    lines = shown(
        tmp_path / "model.onnx",
        pack_model(tiny_graph, replace(tiny_card, data={"classes": classes, "left_out": 2}).to_json()),
    )
    assert "  classes   maxi_dress 12, نیم\u200cتنه 3" in lines
    assert "  left out  2" in lines


def test_what_steers_a_terminal_is_escaped_and_what_words_need_is_not() -> None:
    assert printable("نیم\u200cتنه 👩\u200d🎤\u00a0x") == "نیم\u200cتنه 👩\u200d🎤\u00a0x"
    assert printable("a\u202eb\x1b\n") == "a\\u202eb\\x1b\\n"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("file: b0.safetensors", "architecture  tf_efficientnet_b0"),
        ("hub: timm/b0@12", "backbone  tf_efficientnet_b0.ns_jft_in1k"),
    ],
)
def test_weights_of_a_file_are_not_those_that_the_backbones_name_tells_of(
    tmp_path: Path, tiny_graph: onnx.ModelProto, tiny_card: ModelCard, pack_model: Pack, source: str, told: str
) -> None:
    card = replace(
        tiny_card, training={"seconds": 3, "backbone": "tf_efficientnet_b0.ns_jft_in1k"}, weights={"source": source}
    )
    assert f"  {told}" in shown(tmp_path / "model.onnx", pack_model(tiny_graph, card.to_json()))


@pytest.mark.parametrize(
    "changes",
    [
        {"promise": {}, "metrics": {}, "data": {}, "training": {}, "weights": {}},
        {"promise": {"accuracy": "high", "kept": False, "share": None}, "commit": "abc"},
        {"metrics": {"test": "good", "other": {"per_class": [1], "deep": [[[[[[1]]]]]]}}},
        {"metrics": {"test": {"per_class": {"red": {}}}}},
        {"metrics": {"test": {"folds": [{}, {}], "by": {"": {"": {"": {"": {"": {}}}}}}, "x": [[{}], {}]}}},
        {"weights": {"source": "file:"}, "training": {"backbone": ["a.b", None]}},
        {"weights": {"source": "file:"}, "training": {"backbone": None, "approach": None, "recipe": [{}, {"\x1b": 1}]}},
        {"data": {"classes": {}, "parts": {}}},
        {"data": {"classes": {"\x1b[2J": {"a_b": [1.5, None]}}}},
        {"name": "\x1b[2J\n\udc80", "weights": {"\x1b]0;x\x07": ["\x1b[31m", None, 1.5, True]}},
    ],
)
def test_any_card_can_be_shown(
    tmp_path: Path, tiny_graph: onnx.ModelProto, tiny_card: ModelCard, pack_model: Pack, changes: dict[str, Any]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(pack_model(tiny_graph, replace(tiny_card, **changes).to_json()))
    result = info(path)
    assert result.exit_code == 0
    assert all(line.isprintable() for line in result.stdout.splitlines())


def test_files_that_are_no_whole_models_are_one_line(tmp_path: Path, tiny_model: Path) -> None:
    content = bytearray(tiny_model.read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "flipped.onnx").write_bytes(content)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert info("two\nlines").stderr.startswith("Error: two\\nlines: ")
    for name in ("flipped.onnx", "photo.jpg", "none.onnx"):
        result = info(tmp_path / name)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith(f"Error: {tmp_path / name}: ")
        assert result.stderr.count("\n") == 1


def test_the_module_is_the_command_and_tells_its_version() -> None:
    told = subprocess.check_output([sys.executable, "-m", "clothing_classifier", "--version"], text=True, timeout=60)
    assert told == f"clothing {__version__}\n"
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    assert f'\nversion = "{__version__}"\n' in project or '\ndynamic = ["version"]\n' in project
