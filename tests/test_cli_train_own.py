from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clothing_classifier.card import ModelCard, ModelFile
from clothing_classifier.cli import main
from clothing_classifier.cli.train import describe_own
from clothing_classifier.dataset import Manifest, Photo


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def train(data: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["train", *options, "--data", str(data), "--out", str(data.parent / "run")])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--weights", "hub"), "--weights needs an APPROACH: the base model brings"),
        (("--weights-licence", "MIT"), "--weights-licence needs an APPROACH"),
        (("--device", "auto"), "--device needs an APPROACH: the base model runs on the processor"),
        (("--epochs", "0"), "--epochs needs an APPROACH: the last layer is solved for"),
        (("--backbone", "resnet18"), "--backbone needs an APPROACH"),
        (("--crossval", "."), "--crossval needs an APPROACH"),
        (("custom-cnn", "--base", "model.onnx"), "--base is for a new last layer, without APPROACH"),
        (("custom-cnn", "--photos", "."), "--photos says where the paths in a table start from"),
        (("--photos", "."), "--photos says where the paths in a table start from, and --data is a folder"),
    ],
)
def test_options_of_the_other_way_are_refused_by_name(data: Path, options: tuple[str, ...], reason: str) -> None:
    code, output = train(data, *options)
    assert code == 2
    assert reason in output
    assert not (data.parent / "run").exists()


def test_help_explains_both_ways(data: Path) -> None:
    output = " ".join(CliRunner().invoke(main, ["train", "--help"]).output.split())
    assert "Without APPROACH: a model of your own classes" in output
    assert "With APPROACH: a network is trained" in output
    assert "[OPTIONS] [APPROACH]" in output, "APPROACH may be left out"


@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("onnx", (), "own"),
        ("scipy", (), "own"),
        ("sklearn", (), "own"),
        ("torch", ("custom-cnn",), "train"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(data: Path, missing: str, words: tuple[str, ...], extra: str) -> None:
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from clothing_classifier.cli import main
main({["train", *words, "--data", str(data), "--out", str(data.parent / "run")]!r})
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert f'pip install "clothing-classifier[{extra}]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_what_cannot_be_is_one_line(data: Path) -> None:
    pytest.importorskip("onnx", reason="needs the extra own")
    pytest.importorskip("sklearn", reason="needs the extra own")
    code, output = train(data)
    assert code == 2
    assert output.splitlines()[-1].startswith(f"Error: {data}: the folder is empty")
    (data.parent / "base.onnx").write_bytes(b"no model")
    code, output = train(data, "--base", str(data.parent / "base.onnx"))
    assert code == 2
    assert "is not an ONNX model" in output


def describe(
    card: ModelCard,
    photos: Sequence[Photo] = (),
    judged: Sequence[dict[str, str]] = (),
    *,
    judges: str = "folds",
    **figures: Any,
) -> str:
    rows = {
        "bow": {"precision": 0.9, "recall": 0.95, "f1": 0.92, "photos": 40},
        "scarf": {"precision": 0.8, "recall": 0.7, "f1": 0.75, "photos": 30},
    }
    metrics = {
        judges: {
            "protocol": "5 folds; seed 0",
            "photos": 70,
            "accuracy": 0.85,
            "weighted_f1": 0.85,
            "macro_f1": 0.83,
            "intervals": {"weighted_f1": [0.8, 0.9]},
            "per_class": rows,
            "confusion": [[38, 2], [9, 21]],
            **figures,
        }
    }
    file = ModelFile(Path("my runs/model.onnx"), b"", card)
    manifest = Manifest(Path("photos"), "table", tuple(photos), ("gone.jpg",) * (len(photos) > 0))
    return "\n".join(describe_own(file, metrics, manifest, judged))


@pytest.fixture
def card(tiny_card: ModelCard) -> ModelCard:
    return replace(
        tiny_card,
        labels=("bow", "scarf"),
        data={"classes": {"bow": 40, "scarf": 30}, "near_copies": 0, "all_alike": [], "one_sender": []},
        promise={"kept": True, "accuracy": 0.97, "share": 0.81, "measured_accuracy": 0.983, "photos": 70}
        | {"interval": [0.91, 1.0]},
        threshold=0.75,
    )


def test_the_end_says_what_it_is_worth_and_how_to_use_it(card: ModelCard) -> None:
    text = describe(card)
    assert "scarf      30      0.800   0.700  0.750  bow (9 of 30)" in text
    assert "folds         70 photos   weighted F1 0.850 (0.800 to 0.900)" in text
    assert "measured on: 5 folds; seed 0" in text
    assert "Weakest: scarf (F1 0.75). More photos of it help most." in text
    assert "names 81% of such photos and is right in 98.3% of these (95% interval: 91.0% to 100.0%; promised" in text
    assert "promised: 97%); below a probability of 0.75 it says not sure." in text
    assert text.endswith("clothing predict --model 'my runs/model.onnx' PHOTOS")
    assert "Left out" not in text
    assert "near copies" not in text


def test_the_end_says_what_was_wrong_with_the_photos(card: ModelCard) -> None:
    data = {**card.data, "near_copies": 6, "all_alike": ["bow"], "one_sender": ["scarf"], "taught_test_photos": 3}
    dropped = ("unreadable: is not a picture", "exact copy: of bow/3.jpg", "taken at 12:30: dark", "taken at 12:30")
    left_out = [Photo(f"bow/{number}.jpg", "bow", dropped=why) for number, why in enumerate((*dropped, ""), 1)]
    judged = [
        {"path": f"bow/{number}.jpg", "label": "scarf" if number == 7 else "bow", "group": str(number // 2)}
        | {"taught": "true" if number < 3 else "false"}
        for number in range(8)
    ]
    text = describe(replace(card, data=data), left_out, judged)
    assert "These look the same, and have different labels: bow/6.jpg (bow), bow/7.jpg (scarf)." in text
    assert text.count("These look the same") == 1
    assert "Left out: bow/1.jpg (unreadable: is not a picture)" in text
    told = "taken at 12:30 (2), unreadable (1), exact copy (1), row without a photo (1)"
    assert f"Left out in all: {told}; manifest.csv names each photo" in text
    assert "6 photos have near copies" in text
    assert "The photos of bow look all the same" in text
    assert "The photos of scarf are all of one sender, so its figures flatter; add photos of other senders." in text
    assert "3 test photos are near copies of photos that taught" in text
    assert "so the figures flatter; take out: bow/0.jpg, bow/1.jpg, bow/2.jpg." in text
    data = {**card.data, "known_senders_test_photos": 4}
    assert "4 test photos are by senders whose photos taught" in describe(replace(card, data=data))


def test_a_class_that_was_not_judged_is_not_called_the_weakest(card: ModelCard) -> None:
    rows = {
        "bow": {"precision": 0.9, "recall": 0.95, "f1": 0.92, "photos": 40},
        "scarf": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "photos": 0},
    }
    text = describe(card, per_class=rows, accuracy=1.0)
    assert "No photo to judge by: scarf. Nothing is known of it." in text
    assert "Weakest" not in text
    assert "Where no answer is wrong, this interval has no width, and says nothing of chance." in text


def test_of_many_contradictions_ten_are_named(card: ModelCard) -> None:
    judged = [
        {"path": f"{label}/{number}.jpg", "label": label, "group": str(number)}
        for number in range(13)
        for label in ("bow", "scarf")
    ]
    text = describe(card, judged=judged)
    assert text.count("These look the same") == 10
    assert "So do those of 3 more groups; predictions.csv has the group of each photo." in text


def test_a_promise_that_cannot_be_kept_is_not_made(card: ModelCard) -> None:
    card = replace(card, promise={**card.promise, "kept": False, "measured_accuracy": 0.9, "photos": 500})
    text = describe(card)
    assert "These 70 photos cannot show that 97% of its answers are right (measured: 90.0%)" in text
    assert "Add photos of scarf (has 30), and repeat the command with another --out." in text
    assert "Add photos to the test part, above all of scarf (has 30), and repeat" in describe(card, judges="test")
    assert "promised" not in text
