from __future__ import annotations

import csv
import gc
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clothing_classifier import Classifier
from clothing_classifier.bulk import _AHEAD, GROUP
from clothing_classifier.classifier import Prediction
from clothing_classifier.cli import main
from clothing_classifier.cli.table import hold
from clothing_classifier.evaluation.labelled import Evaluation
from clothing_classifier.taxonomy import is_printable
from clothing_classifier.training.packing import pack

if TYPE_CHECKING:
    import onnx

    from clothing_classifier.card import ModelCard

COLOURS = {"red": (220, 30, 20), "green": (10, 200, 40), "blue": (20, 40, 210), "grey": (128, 128, 128)}
HEADER = ["path", "label", "predicted", "probability", "sure", "right", "error"]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PROGRAM = "from clothing_classifier.cli import main; main(prog_name='clothing')"
posix = pytest.mark.skipif(os.name != "posix", reason="terminals and devices of POSIX")


def paint(path: Path, colour: str | tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 24), COLOURS[colour] if isinstance(colour, str) else colour).save(path)
    return path


def write_table(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder per class: two red photos, a green one, a blue one that is labelled green, and a grey one as blue."""
    data = tmp_path / "data"
    for path, colour in (
        ("Red/1.png", "red"),
        ("Red/2.png", "red"),
        ("G-reen/1.png", "green"),
        ("G-reen/2.png", "blue"),
        ("blue/1.png", "grey"),
    ):
        paint(data / path, colour)
    return data


def evaluate(model: Path | None, *arguments: object) -> Result:
    named = () if model is None else ("--model", model)
    return CliRunner().invoke(main, ["evaluate", *map(str, (*named, *arguments))])


def figures(model: Path | None, *arguments: object, code: int = 0) -> dict[str, Any]:
    result = evaluate(model, *arguments, "--format", "json")
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, "evaluate", *map(str, arguments)],
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


# --------------------------------------------------------------------------------------------------------- figures


def test_the_figures_are_scikit_learns(tiny_model: Path, tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra train")
    random = np.random.default_rng(7)
    rows: list[Sequence[object]] = [("name", "category", "sender")]
    for number in range(60):
        # Colours of every kind, labels of two classes alone, and one of these rare.
        r, g, b = random.integers(0, 256, 3).tolist()
        paint(tmp_path / f"{number}.png", (r, g, b))
        rows.append((f"{number}.png", "Blue" if number % 12 == 0 else "red", f"sender {number // 4}"))
    found = figures(tiny_model, write_table(tmp_path / "t.csv", rows), "--out", tmp_path / "rows.csv")
    judged = rows_of(tmp_path / "rows.csv")
    truth, predicted = [row["label"] for row in judged], [row["predicted"] for row in judged]
    assert Counter(truth) == {"red": 55, "blue": 5}
    assert found["photos"] == 60
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted), abs=1e-4)
    labels = ["red", "green", "blue"]
    for average in ("weighted", "macro"):
        wanted = metrics.f1_score(truth, predicted, labels=["red", "blue"], average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(wanted, abs=1e-4)
    each = metrics.precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    for label, *wanted in zip(labels, *each, strict=True):
        row = found["per_class"][label]
        assert [row[key] for key in ("precision", "recall", "f1", "photos")] == pytest.approx(wanted, abs=1e-4)
    assert found["confusion"] == metrics.confusion_matrix(truth, predicted, labels=labels).tolist()
    sure = [row for row in judged if row["sure"] == "true"]
    right = [row for row in sure if row["right"] == "true"]
    assert found["sure"]["share"] == pytest.approx(len(sure) / 60, abs=1e-4)
    assert (found["sure"]["photos"], found["sure"]["right"]) == (len(sure), len(right))
    confidence = np.array([float(row["probability"]) for row in judged])
    hits = np.array([row["right"] == "true" for row in judged])
    bins = np.minimum((confidence * 15).astype(int), 14)
    gap = sum(abs((hits[bins == b] - confidence[bins == b]).sum()) for b in range(15)) / 60
    assert found["expected_calibration_error"] == pytest.approx(gap, abs=1e-4)
    assert (found["intervals_over"], found["senders"]) == ("senders", 15)
    for name, (low, high) in found["intervals"].items():
        assert low <= found[name] <= high


def test_a_folder_per_class_reads_well(tiny_model: Path, folder: Path) -> None:
    for other in ("Not sure/1.png", "not-sure/2.png", "Skip/1.png", "scarf/1.png"):
        paint(folder / other, "red")
    result = evaluate(tiny_model, folder)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert f"Photos 5 photos in {folder} (folder per class)" in text
    assert "Left out labels that are no class of the model: Not sure (2), Skip (1), scarf (1)" in text
    assert "red 2 0.667 1.000 0.800 green 2 1.000 0.500 0.667 blue (1 of 2) blue 1 0.000 0.000 0.000 red" in text
    assert "accuracy 0.600 (" in text
    assert "95% intervals, bootstrap over photos" in text
    assert "Sure at a probability of 0.6000 or more, it names 80.0% of these photos, 4 of 5. Of these 3 are" in text
    assert "75.0% (95% interval: 19.4% to 99.4%)." in text
    assert "promises that 97% of what it names is right. Where that was measured, it named 41.0%." in text
    assert "fewer than promised, but within chance" in text
    title, first, second = result.stdout.splitlines()[-3:]
    assert title.split() == ["label", "predicted", "probability", "photo"]
    assert first.split()[:2] == ["green", "blue"]
    assert {line.split()[-1] for line in (first, second)} == {str(folder / "G-reen/2.png"), str(folder / "blue/1.png")}
    assert result.stderr == ""


def test_classes_without_photos_are_not_counted_and_named(tiny_model: Path, tmp_path: Path) -> None:
    paint(tmp_path / "data/red/1.png", "red")
    paint(tmp_path / "data/red/2.png", "blue")
    result = evaluate(tiny_model, tmp_path / "data")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["red", "2", "1.000", "0.500", "0.667", "blue", "(1", "of", "2)"] in lines
    assert ["blue", "0", "0.000", "–", "–"] in lines
    assert "No photos of: green, blue" in result.stdout
    assert "macro F1                   0.667" in result.stdout
    assert "the plain mean over the 1 class with photos here" in result.stdout


def test_a_model_without_a_mistake_is_not_beyond_chance(tiny_model: Path, tmp_path: Path) -> None:
    paint(tmp_path / "data/red/1.png", "red")
    text = " ".join(evaluate(tiny_model, tmp_path / "data").stdout.split())
    assert "have no width, and say nothing of chance" in text
    assert "95% interval: 2.5% to 100.0%" in text
    assert "too few to show 97% beyond chance" in text
    assert "mistakes" not in text


def test_the_threshold_may_be_chosen_and_is_then_not_the_promised_one(tiny_model: Path, folder: Path) -> None:
    found = figures(tiny_model, folder, "--threshold", 0)
    assert (found["threshold"], found["sure"]["share"]) == (0, 1)
    assert found["promise"]["verdict"] is None
    assert "nothing is promised at another one" in evaluate(tiny_model, folder, "--threshold", 0.5).stdout
    assert (
        "names none of these photos" in evaluate(tiny_model, paint(folder / "x/blue/1.png", "grey").parents[1]).stdout
    )


def test_a_threshold_that_would_keep_the_promise_is_told_with_its_caution(tiny_model: Path, tmp_path: Path) -> None:
    rows: list[Sequence[object]] = [("path", "label")]
    for number in range(240):
        # The more a red is mixed, the less sure it is; those that are mixed most are labelled wrongly.
        mixed = number // 2
        rows.append((paint(tmp_path / f"{number}.png", (255, mixed, mixed)).name, "green" if number >= 220 else "red"))
    table = write_table(tmp_path / "t.csv", rows)
    keeping = figures(tiny_model, table)["keeping"]
    assert keeping["accuracy"] >= 0.97
    assert keeping["share"] == pytest.approx(220 / 240 / 0.97, abs=0.01)
    text = " ".join(evaluate(tiny_model, table).stdout.split())
    assert "The promise does not hold on these photos: fewer are right, by more than chance." in text
    assert f"With --threshold {keeping['threshold']:.4f} it would name {keeping['share']:.1%} of them" in text
    assert "chosen on the very photos" in text
    again = figures(tiny_model, table, "--threshold", keeping["threshold"])["sure"]
    assert (again["share"], again["accuracy"]) == (keeping["share"], keeping["accuracy"])


@pytest.mark.parametrize(
    ("promise", "told"),
    [
        ({}, "Its card promises nothing."),
        ({"accuracy": "all"}, "Its card promises nothing."),
        ({"accuracy": 0.97, "kept": False}, "does not promise that 97% are right: the photos that it was measured on"),
        ({"accuracy": 0.975}, "Its card promises that 97.5% of what it names is right. That is fewer than promised"),
        ({"accuracy": 0.5, "share": "most", "measured_accuracy": 0.6}, "50% of what it names is right. The promise"),
        ({"accuracy": 0.5, "share": 0.4, "measured_accuracy": 0.6}, "it named 40.0% and was right in 60.0% of these."),
    ],
)
def test_it_tells_what_any_card_promises(
    tiny_graph: onnx.ModelProto,
    tiny_card: ModelCard,
    pack_model: Callable[[onnx.ModelProto, str], bytes],
    folder: Path,
    promise: dict[str, Any],
    told: str,
) -> None:
    model = folder.parent / "model.onnx"
    model.write_bytes(pack_model(tiny_graph, replace(tiny_card, promise=promise).to_json()))
    assert told in " ".join(evaluate(model, folder).stdout.split())


def test_it_says_that_no_threshold_keeps_the_promise(tiny_model: Path, tmp_path: Path) -> None:
    paths = [paint(tmp_path / f"{number}.png", "red").name for number in range(200)]
    rows = [("path", "label"), *((path, "red" if number % 2 else "blue") for number, path in enumerate(paths))]
    text = " ".join(evaluate(tiny_model, write_table(tmp_path / "t.csv", rows)).stdout.split())
    assert "No threshold makes 97% of what it names right on these photos." in text


def test_text_says_no_more_than_json(tiny_model: Path, folder: Path) -> None:
    found = figures(tiny_model, folder)
    text = evaluate(tiny_model, folder).stdout
    for name in ("accuracy", "weighted_f1", "macro_f1"):
        low, high = found["intervals"][name]
        assert f"{found[name]:.3f} ({low:.3f} to {high:.3f})" in text
    assert found["data"] == {"path": str(folder), "edition": "folder per class", "photos_in": str(folder), "part": None}
    assert found["model"] == {"path": str(tiny_model), "name": "tiny"}
    assert (found["unreadable"], found["unchecked_labels"]) == ([], 0)
    assert (found["learned_from"], found["same_dataset"]) == (None, False), "a file that does not tell"


# ------------------------------------------------------------------------------------------------------------ data


def test_a_dataset_counts_by_its_table_and_its_senders(tiny_model: Path, tmp_path: Path) -> None:
    for name in "abcd":
        paint(tmp_path / f"images/{name}.png", "red")
    table = "image,sender_id,label,kids\na,1,RED,False\nb,2,red,False\nc,2,Not sure,False\nz,3,red,False\n"
    (tmp_path / "images.csv").write_text(table)
    found = figures(tiny_model, tmp_path)
    assert (found["photos"], found["accuracy"], found["senders"]) == (2, 1, 2)
    assert found["data"]["edition"] == "GitHub"
    assert found["left_out"] == {
        "labels": {"Not sure": 1},
        "reasons": {"no row in images.csv": 1, "row without a photo": 1},
    }
    text = evaluate(tiny_model, tmp_path).stdout
    assert "bootstrap over 2 senders" in text
    assert "Left out      no row in images.csv (1), row without a photo (1)" in text


def test_a_part_may_be_chosen(tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "parts"
    for part in ("train", "val"):
        for label in ("red", "green"):
            paint(data / part / label / "1.png", "red" if part == "val" else label)
    assert figures(tiny_model, data)["photos"] == 4
    found = figures(tiny_model, data, "--part", "validation")
    assert (found["photos"], found["accuracy"], found["data"]["part"]) == (2, 0.5, "validation")
    missing = evaluate(tiny_model, data, "--part", "test")
    assert (missing.exit_code, missing.stderr) == (
        2,
        f"Error: {data}: has no photos of the part test; there are: train, validation\n",
    )
    none = evaluate(tiny_model, data / "val", "--part", "test")
    assert "it comes in no parts" in none.stderr


@pytest.fixture
def taught(tiny_graph: onnx.ModelProto, tiny_card: ModelCard, folder: Path) -> Path:
    """A model file that learned from both red photos of `folder`."""
    digests = [hashlib.sha256((folder / "Red" / name).read_bytes()).hexdigest() for name in ("1.png", "2.png")]
    model = folder.parent / "taught.onnx"
    model.write_bytes(pack(tiny_graph, tiny_card, [*digests, "f" * 64]))
    return model


def test_photos_that_taught_the_model_are_known_again_and_may_be_left_out(taught: Path, folder: Path) -> None:
    """Both red photos have the same bytes, and a copy under another name is the same photo."""
    copy = folder / "Red" / "copy.png"
    copy.write_bytes((folder / "Red" / "1.png").read_bytes())
    everything = figures(taught, folder)
    assert (everything["learned_from"], everything["unseen"]) == (3, None)
    text = " ".join(evaluate(taught, folder).stdout.split())
    assert "Caution the model learned from 3 of these photos, which flatter it; --unseen leaves them out" in text

    out = folder.parent / "rows.csv"
    others = figures(taught, folder, "--unseen", "--out", out)
    assert (others["learned_from"], others["unseen"]) == (3, {"left_out": 3})
    assert others["photos"] == everything["photos"] - 3
    assert others["per_class"]["red"]["photos"] == 0
    with out.open(encoding="utf-8", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"green", "blue"}
    text = " ".join(evaluate(taught, folder, "--unseen").stdout.split())
    assert "Left out photos that the model learned from (3)" in text
    assert "Caution" not in text


def test_nothing_is_left_where_all_photos_taught_the_model(taught: Path, folder: Path) -> None:
    for label in ("G-reen", "blue"):
        shutil.rmtree(folder / label)
    out = write_table(folder.parent / "rows.csv", [["path"], ["what was there"]])
    before = out.read_bytes()
    result = evaluate(taught, folder, "--unseen", "--out", out)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{folder}: the model learned from all of these photos; take others" in result.stderr
    assert out.read_bytes() == before
    (folder / "Red" / "torn.png").write_bytes(b"torn")
    result = evaluate(taught, folder, "--unseen")
    assert result.exit_code == 1
    assert "There is nothing to measure on." in result.stdout


def test_what_is_left_out_is_not_looked_at(taught: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    prepare = Classifier.prepare

    def watch(self: Classifier, source: Any) -> Any:
        looked.append(Path(source).parent.name)
        return prepare(self, source)

    monkeypatch.setattr(Classifier, "prepare", watch)
    figures(taught, folder, "--unseen")
    assert {*looked} == {"G-reen", "blue"}


def test_a_model_that_does_not_tell_what_taught_it_leaves_nothing_out(tiny_model: Path, folder: Path) -> None:
    result = evaluate(tiny_model, folder, "--unseen")
    assert result.exit_code == 2
    assert f"{tiny_model}: does not tell which photos it learned from" in result.stderr


def test_two_models_meet_on_the_same_photos(
    tiny_model: Path, tiny_graph: onnx.ModelProto, tiny_card: ModelCard, tmp_path: Path
) -> None:
    """The other takes green for red and red for green, and its card has the classes in another order."""
    data = tmp_path / "data"
    for number in range(12):
        for label in ("red", "green", "blue"):
            paint(data / label / f"{number}.png", label)
    other = tmp_path / "other.onnx"
    other.write_bytes(pack(tiny_graph, replace(tiny_card, name="swapped", labels=("green", "red", "blue")), []))
    found = figures(tiny_model, data, "--against", other)
    assert found["accuracy"] == 1
    beside = found["against"]
    assert (beside["name"], beside["path"], beside["accuracy"]) == (
        "swapped",
        str(other),
        pytest.approx(1 / 3, abs=1e-4),
    )
    assert beside["differences"]["accuracy"]["difference"] == pytest.approx(2 / 3, abs=1e-4)
    low, high = beside["differences"]["accuracy"]["interval"]
    assert 0.4 < low < 2 / 3 < high < 0.9, "twelve of 36 photos are right: about 16 points either way"
    text = " ".join(evaluate(tiny_model, data, "--against", other).stdout.split())
    assert f"Beside it, on the same photos: swapped, {other}" in text
    assert f"accuracy 1.000 0.333 +0.667 ({low:+.3f} to {high:+.3f})" in text
    assert "By weighted F1 the model is better than the other, by more than chance." in text
    turned = " ".join(evaluate(other, data, "--against", tiny_model).stdout.split())
    assert "By weighted F1 the model is worse than the other, by more than chance." in turned
    same = figures(tiny_model, data, "--against", tiny_model)["against"]["differences"]
    assert all(row == {"difference": 0, "interval": [0, 0]} for row in same.values())
    text = " ".join(evaluate(tiny_model, data, "--against", tiny_model).stdout.split())
    assert "Which of them is better by weighted F1, these photos do not show beyond chance." in text


@posix
def test_two_runs_do_not_write_to_one_file(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    assert evaluate(tiny_model, folder, "--out", out).exit_code == 0
    written = out.read_bytes()
    with hold(out):
        result = evaluate(tiny_model, folder, "--out", out)
    assert (result.exit_code, f"{out}: another run writes to it; wait for" in result.stderr) == (2, True)
    assert out.read_bytes() == written
    assert evaluate(tiny_model, folder, "--out", out).exit_code == 0


def test_what_either_of_two_models_learned_from_is_left_out(
    taught: Path, tiny_graph: onnx.ModelProto, tiny_card: ModelCard, folder: Path
) -> None:
    other = folder.parent / "other.onnx"
    blue = hashlib.sha256((folder / "blue" / "1.png").read_bytes()).hexdigest()
    other.write_bytes(pack(tiny_graph, tiny_card, [blue]))
    found = figures(taught, folder, "--against", other)
    assert (found["learned_from"], found["against"]["learned_from"]) == (2, 1)
    text = " ".join(evaluate(taught, folder, "--against", other).stdout.split())
    assert "It learned from 1 of them, which flatter it; --unseen leaves them out." in text
    left = figures(taught, folder, "--against", other, "--unseen")
    assert (left["photos"], left["unseen"]) == (found["photos"] - 3, {"left_out": 3})
    text = " ".join(evaluate(taught, folder, "--against", other, "--unseen").stdout.split())
    assert "Left out photos that one of the models learned from (3)" in text


def test_models_of_other_classes_do_not_meet(tiny_model: Path, folder: Path) -> None:
    result = evaluate(tiny_model, folder, "--against", "shipped")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "only models of the same classes can be compared" in result.stderr
    assert f"{tiny_model} alone has: blue, green, red" in result.stderr
    assert "Blazer, Blouse" in result.stderr


def test_the_shipped_model_learned_from_the_published_dataset(shared_dataset: Path, tmp_path: Path) -> None:
    with (shared_dataset / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in ("T-Shirt", "Pants", "Shoes")][:20]
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    for row in rows:
        name = f"{row['image']}.jpg"
        if (shared_dataset / "images" / name).is_file():
            (data / "images" / name).symlink_to(shared_dataset / "images" / name)
    write_table(data / "images.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    found = figures(None, data)
    assert found["accuracy"] > 0.8
    assert found["learned_from"] == found["photos"]
    assert found["same_dataset"]
    text = " ".join(evaluate(None, data).stdout.split())
    assert f"Caution the model learned from {found['photos']} of these photos, which flatter it" in text

    for photo in (data / "images").iterdir():  # as other editions have them: the same picture in other bytes
        picture = Image.open(photo)
        photo.unlink()
        picture.save(photo)
    assert figures(None, data)["learned_from"] == 0
    text = " ".join(evaluate(None, data).stdout.split())
    assert "Caution the model learned from the Clothing dataset; if these photos are of it, the figures flatter" in text


def test_the_shipped_model_knows_the_examples_by_a_table_of_their_names(tmp_path: Path) -> None:
    rows = [("file", "class"), *((path.name, path.stem) for path in sorted(EXAMPLES.glob("*.jpg")))]
    found = figures(None, write_table(tmp_path / "t.csv", rows), "--photos", EXAMPLES)
    assert found["photos"] == len(rows) - 1
    assert found["accuracy"] > 0.8
    assert found["data"]["photos_in"] == str(EXAMPLES)


def test_what_predict_wrote_can_be_corrected_and_measured(tiny_model: Path, folder: Path) -> None:
    table = folder.parent / "predicted.csv"
    predicted = CliRunner().invoke(main, ["predict", "--model", str(tiny_model), str(folder), "--out", str(table)])
    assert predicted.exit_code == 0
    unedited = figures(tiny_model, table)
    assert (unedited["accuracy"], unedited["unchecked_labels"]) == (1, 5)
    text = " ".join(evaluate(tiny_model, table).stdout.split())
    assert "5 labels of this table may be a model's own, which nobody corrected, and count as right" in text
    rows = rows_of(table)
    rows[1] |= {"label": "red"}  # the blue photo
    corrected = write_table(folder.parent / "corrected.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    assert figures(tiny_model, corrected)["accuracy"] == 0.8
    for row in rows:
        row |= {"truth": "green"}
    truth = write_table(folder.parent / "truth.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    found = figures(tiny_model, truth)
    assert found["accuracy"] == pytest.approx(sum(row["label"] == "green" for row in rows) / 5)
    assert found["unchecked_labels"] == 0


def test_what_the_page_lets_people_take_away_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    # As service/page/csv.js writes it; test_dataset_labels.py runs that script itself.
    rows = [
        ["name", "answer", "label", "probability", "sure", "corrected", "error", "label_2", "probability_2"],
        ["a.png", "red", "red", "0.99", "true", "false", "", "blue", "0.01"],
        ["b.png", "green", "blue", "0.9", "true", "true", "", "green", "0.01"],
        ["'=c.png", "blue", "red", "0.4", "false", "true", "", "blue", "0.3"],
        ["d.png", "not sure", "red", "0.4", "false", "false", "", "blue", "0.3"],
        ["e.png", "", "", "", "", "false", "is empty", "", ""],
    ]
    for name, colour in (("a.png", "red"), ("b.png", "blue"), ("=c.png", "blue"), ("d.png", "grey")):
        paint(tmp_path / name, colour)
    table = tmp_path / "clothing-2026-01-02-0304.csv"
    table.write_bytes("\ufeff".encode() + "".join(",".join(row) + "\r\n" for row in rows).encode())
    found = figures(tiny_model, table)
    assert (found["photos"], found["accuracy"], found["unchecked_labels"]) == (3, 0.6667, 1)
    assert found["left_out"] == {"labels": {"Not sure": 1}, "reasons": {"no label": 1}}
    text = " ".join(evaluate(tiny_model, table).stdout.split())
    assert "1 label of this table may be a model's own" in text
    assert "nobody named 1 photo that it was not sure of: the hardest are missing" in text


def test_its_own_rows_can_be_corrected_and_measured_again(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "rows.csv", tmp_path / "again.csv"
    assert evaluate(tiny_model, folder, "--out", out).exit_code == 0
    header, *rows = csv.reader(io.StringIO(out.read_text("utf-8"), newline=""))
    assert header == HEADER
    classifier = Classifier.load(tiny_model)
    for path, label, predicted, probability, sure, right, error in rows:
        prediction = classifier.predict(path)
        assert (predicted, probability) == (prediction.label, f"{prediction.probability:.6f}")
        assert sure == str(prediction.sure).lower()
        assert right == str(prediction.label == label).lower()
        assert (label, error) == ({"Red": "red", "G-reen": "green", "blue": "blue"}[Path(path).parent.name], "")
    assert figures(tiny_model, out, "--out", again)["unchecked_labels"] == 0
    assert again.read_text("utf-8") == out.read_text("utf-8")
    out.write_text(out.read_text("utf-8").replace("2.png,green,blue", "2.png,blue,blue"), "utf-8")
    assert figures(tiny_model, out)["accuracy"] == 0.8


# ---------------------------------------------------------------------------------------------------------- errors


def test_photos_that_cannot_be_read_are_named_and_the_figures_are_of_the_others(
    tiny_model: Path, folder: Path, tmp_path: Path
) -> None:
    bad = folder / "blue/bad.png"
    bad.write_bytes(b"not a picture")
    (folder / "Red/gone.png").symlink_to(tmp_path / "nowhere.png")
    result = evaluate(tiny_model, folder, "--out", tmp_path / "rows.csv")
    assert result.exit_code == 1
    assert "Unreadable    2 photos; all figures are of the others" in result.stdout
    assert f"  {bad}: is not a picture of a known kind" in result.stdout
    assert f"  {folder / 'Red/gone.png'}: does not exist" in result.stdout
    assert "Photos        5 photos in" in result.stdout
    failed = [row for row in rows_of(tmp_path / "rows.csv") if row["error"]]
    assert [(row["path"], row["label"]) for row in failed] == [
        (str(folder / "Red/gone.png"), "red"),
        (str(bad), "blue"),
    ]
    assert {row[key] for row in failed for key in ("predicted", "probability", "sure", "right")} == {""}
    found = figures(tiny_model, folder, code=1)
    assert [(entry["path"], bool(entry["reason"])) for entry in found["unreadable"]] == [
        (str(folder / "Red/gone.png"), True),
        (str(bad), True),
    ]
    assert found["photos"] == 5


def test_many_unreadable_photos_are_counted_and_none_left_is_told(tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "red").mkdir(parents=True)
    for number in range(13):
        (data / f"red/{number:02}.png").touch()
    result = evaluate(tiny_model, data)
    assert result.exit_code == 1
    assert result.stdout.count(": is empty") == 10
    assert "and 3 more; --out or --format json names them all" in result.stdout
    assert result.stdout.endswith("There is nothing to measure on.\n")
    found = figures(tiny_model, data, code=1)
    assert (found["photos"], len(found["unreadable"])) == (0, 13)
    assert "accuracy" not in found


def test_limits_are_predicts(tiny_model: Path, folder: Path) -> None:
    for limit in (("--max-bytes", 10), ("--max-megapixels", 1e-4)):
        assert len(figures(tiny_model, folder, *limit, "--threads", 1, code=1)["unreadable"]) == 5


def test_labels_that_share_nothing_with_the_model_are_listed_beside_its_classes(
    tiny_model: Path, tmp_path: Path
) -> None:
    for label in ("kilt", "Other"):
        paint(tmp_path / label / "1.png", "red")
    result = evaluate(tiny_model, tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: {tmp_path}: none of its labels is a class of the model; its labels: Other, kilt; "
        "the model's classes: red, green, blue\n"
    )
    many = [("path", "label"), *((str(tmp_path / "kilt/1.png") + "/." * n, f"kilt {n}") for n in range(25))]
    assert "kilt 19, and 5 more; the" in evaluate(tiny_model, write_table(tmp_path / "t.csv", many)).stderr
    unlabelled = write_table(tmp_path / "u.csv", [("path", "label"), ("kilt/1.png", ""), ("x.png", "")])
    assert "u.csv: no photo has a label: no label (2)" in evaluate(tiny_model, unlabelled).stderr


def test_wrong_usage_is_code_2_and_names_what_is_wrong(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    empty, flat = tmp_path / "empty", tmp_path / "flat"
    empty.mkdir()
    paint(flat / "1.png", "red")
    nameless = write_table(tmp_path / "nameless.csv", [("a", "b"), ("1", "2")])
    for arguments, message in (
        ((), "Missing argument 'DATA'"),
        ((folder, "--threshold", 2), "--threshold"),
        ((folder, "--threshold", "nan"), "--threshold"),
        ((folder, "--format", "csv"), "--format"),
        ((folder, "--part", "all"), "--part"),
        ((folder, "--photos", tmp_path), "DATA is a folder"),
        ((folder, "--out", tmp_path / "rows.json"), "rows.json: name it .csv"),
        ((folder, "--out", tmp_path / "none" / "rows.csv"), "rows.csv"),
        ((folder, "--model", tmp_path / "none.onnx"), "none.onnx: cannot be read"),
        ((folder, "--model", flat / "1.png"), "1.png: is not an ONNX model"),
        ((empty,), "empty: the folder is empty"),
        ((flat,), "the photos lie in the folder itself; put each class into a folder of its name"),
        ((flat / "1.png",), "is a photo; give a folder with one folder of photos per class, or a table"),
        ((tmp_path / "nothing",), "nothing: cannot be read (No such file or directory)"),
        ((nameless,), "its first line should name a column for the photo"),
        ((tmp_path / "t.csv", "--photos", tmp_path / "nowhere"), "--photos"),
    ):
        result = evaluate(tiny_model, *arguments)
        assert result.exit_code == 2, arguments
        assert message in " ".join(result.stderr.split())
        assert result.stdout == ""
        assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "rows.csv").exists()


def test_the_rows_replace_nothing_that_is_read(tiny_model: Path, tmp_path: Path) -> None:
    paint(tmp_path / "images/a.png", "red")
    table = write_table(tmp_path / "images.csv", [("image", "label"), ("a", "red")])
    before = table.read_bytes()
    for data in (tmp_path, write_table(tmp_path / "own.csv", [("path", "label"), ("images/a.png", "red")])):
        out = table if data == tmp_path else data
        result = evaluate(tiny_model, data, "--out", out)
        assert (result.exit_code, "is --out and what is to be read" in result.stderr) == (2, True)
    assert table.read_bytes() == before


wild = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    rows=st.lists(st.tuples(wild | st.sampled_from(["a.png", "./a.png"]), wild | st.sampled_from(["red", "B-LUE"]))),
    junk=st.binary(max_size=20),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_table_makes_it_fail_without_a_reason(
    tiny_model: Path, tmp_path: Path, rows: list[tuple[str, str]], junk: bytes
) -> None:
    paint(tmp_path / "a.png", "red")
    table = write_table(tmp_path / "t.csv", [("path", "label"), ("a.png", "red"), *rows])
    with table.open("ab") as file:
        file.write(junk)
    result = evaluate(tiny_model, table)
    assert result.exit_code in (0, 1, 2)
    assert isinstance(result.exception, SystemExit | None)
    assert all(map(is_printable, result.output.split("\n")))
    if result.exit_code == 2:
        assert result.stderr.startswith(f"Error: {table}: ")


# --------------------------------------------------------------------------------------------------------- running


def test_it_needs_no_more_than_using_does(tiny_model: Path, folder: Path) -> None:
    code = f"""
import sys
for name in ("torch", "timm", "sklearn", "scipy", "pandas", "safetensors", "kagglehub", "onnx", "threadpoolctl"):
    sys.modules[name] = None  # importing it fails
from clothing_classifier.cli import main
main(["evaluate", "--model", {str(tiny_model)!r}, {str(folder)!r}])
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert "accuracy" in result.stdout


def test_exit_codes_of_the_real_program(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    paint(broken / "red/1.png", "red")
    (broken / "red/2.png").touch()
    for arguments, wanted in (((folder,), 0), ((broken,), 1), ((tmp_path / "none",), 2)):
        code, out, err = finish(start("--model", tiny_model, *arguments))
        assert code == wanted, err
        assert b"Traceback" not in err
        assert (b"accuracy" in out) == (wanted < 2)


def test_predictions_are_not_kept(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many photos there are, no more answers are alive than are on their way."""
    path = paint(tmp_path / "a.png", "red")
    names = [os.path.join(*["."] * (n // 40 + 1), *["x/.."] * (n % 40), path.name) for n in range(400)]
    (tmp_path / "x").mkdir()
    table = write_table(tmp_path / "t.csv", [("path", "label"), *((name, "red") for name in names)])
    alive: list[int] = []
    add = Evaluation.add
    gc.collect()
    others = {id(thing) for thing in gc.get_objects() if type(thing) is Prediction}  # of other tests

    def count(self: Evaluation, *arguments: Any) -> None:
        add(self, *arguments)
        if len(self._truth) % 50 == 0:
            found = [thing for thing in gc.get_objects() if type(thing) is Prediction]
            alive.append(sum(id(thing) not in others for thing in found))

    monkeypatch.setattr(Evaluation, "add", count)
    assert figures(tiny_model, table, "--threads", 2)["photos"] == 400
    assert len(alive) == 8
    assert max(alive) <= _AHEAD * 2 * GROUP + GROUP


@posix
def test_a_terminal_sees_how_far_it_is(tiny_model: Path, folder: Path) -> None:
    import pty

    reader, terminal = pty.openpty()
    code, out, _ = finish(start("--model", tiny_model, folder, stderr=terminal))
    os.close(terminal)
    shown = os.read(reader, 100_000).decode()
    os.close(reader)
    assert code == 0
    assert "5/5" in shown
    assert b"accuracy" in out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full.csv").symlink_to("/dev/full")
    code, out, err = finish(start("--model", tiny_model, folder, "--out", tmp_path / "full.csv"))
    assert (code, out) == (2, b"")
    assert b"full.csv: cannot be written (No space left on device)" in err
    assert err.count(b"\n") == 1


@posix
def test_a_place_that_cannot_be_written_is_one_line(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").symlink_to("nowhere/rows.csv")
    code, out, err = finish(start("--model", tiny_model, folder, "--out", tmp_path / "rows.csv"))
    reason = "cannot be written (No such file or directory); choose another --out"
    assert (code, out, err.decode()) == (2, b"", f"Error: {tmp_path / 'rows.csv'}: {reason}\n")


@posix
def test_wild_file_names_pass_through_the_real_program(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "red"
    paint(folder / "plain.png", "red")
    content = (folder / "plain.png").read_bytes()
    for name in (b"line\nbreak.png", b'comma,"quote".png', b"\xff\xfe.png", "größe 👗.png".encode(), b"\x1b[2J.png"):
        try:
            Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(content)
        except OSError:  # a file system that only takes UTF-8
            assert name.startswith(b"\xff")
    (folder / "plain.png").write_bytes(b"no\x1b[2Jpicture")
    environment: Mapping[str, str] = {**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
    out = tmp_path / "rows.csv"
    wanted = sorted(os.listdir(os.fsencode(folder)))
    for data in (folder.parent, out):  # the rows, as a table, name the same files
        rows = tmp_path / "again.csv" if data == out else out
        arguments = ("--model", tiny_model, data, "--out", rows, "--threshold", 1)
        code, shown, err = finish(start(*arguments, env=environment))
        assert (code, err) == (1, b"")
        assert b"\x1b" not in shown
        assert sorted(os.path.basename(os.fsencode(row["path"])) for row in rows_of(rows)) == wanted
    assert out.read_bytes() == (tmp_path / "again.csv").read_bytes()


def test_what_is_no_photo_of_a_class_is_told(tiny_model: Path, folder: Path) -> None:
    assert figures(tiny_model, folder)["passed_over"] == []
    for name in ("loose.jpg", "Red/3.jpg_large", "Red/notes"):
        (folder / name).touch()
    (folder / "green").mkdir()
    assert figures(tiny_model, folder)["passed_over"] == ["Red/3.jpg_large", "Red/notes", "green/", "loose.jpg"]
    text = " ".join(evaluate(tiny_model, folder).stdout.split())
    assert "Passed over by their names no photos of a class (4): Red/3.jpg_large, Red/notes, green/, …" in text
