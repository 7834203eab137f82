from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clothing_classifier.evaluation.comparison import (
    PUBLISHED,
    SCORES,
    ComparisonError,
    Curve,
    Result,
    Run,
    contest,
    costs,
    find_doubts,
    full_table,
    name_runs,
    read_run,
    table,
)
from clothing_classifier.taxonomy import CLASSES, TOP_10

if TYPE_CHECKING:
    import crossval_runs as runs
else:
    spec = importlib.util.spec_from_file_location("crossval_runs", Path(__file__).with_name("crossval_runs.py"))
    runs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runs)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> runs.Data:
    return runs.draw(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def folder(data: runs.Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_run(tmp_path_factory.mktemp("runs") / "run", data, runs.guess(data, 0.8))


Make = Callable[..., Run]


@pytest.fixture
def make(data: runs.Data, tmp_path: Path) -> Make:
    """A function: skill → a run that was written and read again."""

    def make(skill: float, seed: int = 0, *, data: runs.Data = data, **options: Any) -> Run:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        return read_run(runs.write_run(place, data, runs.guess(data, skill, seed), **options))

    return make


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def test_a_run_is_read_as_it_was_written(folder: Path, data: runs.Data) -> None:
    run = read_run(folder)
    assert (run.paths, run.labels, run.senders) == (data.paths, data.labels, data.senders)
    assert run.truth.tolist() == list(data.truth)
    assert np.allclose(run.probabilities, runs.guess(data, 0.8), atol=1e-6)
    assert run.confusion.tolist() == run.result.metrics["confusion"]
    assert run.confidence.tolist() == run.probabilities.max(1).tolist()
    assert run.evidence is not None
    assert run.evidence.shape == (60, 2, 4, 3)
    assert isinstance(run.evidence.base, np.memmap)
    assert len(run.curves) == 15
    assert run.curves[4] == Curve(1, 2, 1.0, 1.05, 0.4)
    assert set(run.folds.tolist()) == set(range(5))
    assert run.resizing.height == 24


def test_photos_are_found_again_whatever_their_files_are_called(make: Make, data: runs.Data) -> None:
    names = ("a\rb.png", "c\nd.png", 'e,"f".png', os.fsdecode(b"\xe4.png"))
    assert make(0.8, data=data._replace(paths=(*names, *data.paths[4:]))).paths[:4] == names


def test_a_run_without_epochs_or_evidence_is_a_run(make: Make) -> None:
    run = make(0.8, epochs=0, evidence=False)
    assert run.curves == ()
    assert run.evidence is None


def edit_json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(file: Path) -> None:
        content = json.loads(file.read_text("utf-8"))
        change(content)
        runs.write_json(file, content)

    return edit


def edit_text(old: str, new: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(file.read_text("utf-8").replace(old, new, 1), "utf-8")


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("config.json", Path.unlink, "is not a run of `clothing crossval`"),
        ("config.json", lambda file: (file.unlink(), file.mkdir()), "there is no config.json in it"),
        ("config.json", lambda file: file.write_text("{"), "is damaged"),
        ("config.json", lambda file: file.write_text("[]"), "not an object"),
        ("config.json", lambda file: file.write_text("[" * 100_000), "is damaged"),
        (
            "config.json",
            edit_json(lambda c: (c.pop("folds"), c.pop("protocol"), c.update(split="random"))),
            "perhaps one of `clothing train`",
        ),
        ("config.json", edit_json(lambda c: c.update(format=2)), "of this version"),
        ("config.json", edit_json(lambda c: c.update(protocol="leave-one-out")), "of this version"),
        ("config.json", edit_json(lambda c: c.update(protocol=["random"])), "of this version"),
        ("config.json", edit_json(lambda c: c.pop("approach")), "of this version"),
        ("config.json", edit_json(lambda c: c.update(labels=["a", "a"])), "labels are not a list"),
        ("config.json", edit_json(lambda c: c.update(labels="abc")), "labels are not a list"),
        ("config.json", edit_json(lambda c: c.update(labels=["a", 1])), "labels are not a list"),
        ("config.json", edit_json(lambda c: c.pop("resizing")), "has no resizing"),
        ("config.json", edit_json(lambda c: c["resizing"].update(mode="stretch")), "has no resizing"),
        ("config.json", edit_json(lambda c: c.update(resizing=None)), "has no resizing"),
        ("metrics.json", Path.unlink, "is not finished"),
        ("metrics.json", lambda file: file.write_bytes(b"\xff\xfe\x00"), "is damaged"),
        ("metrics.json", edit_json(lambda m: m.update(macro_f1="high")), "macro_f1 is not a number"),
        ("metrics.json", edit_json(lambda m: m.update(accuracy=float("nan"))), "accuracy is not a number"),
        ("metrics.json", edit_json(lambda m: m.update(weighted_f1=1.5)), "weighted_f1 is not a number"),
        ("metrics.json", edit_json(lambda m: m.update(weighted_f1=-0.1)), "weighted_f1 is not a number"),
        ("metrics.json", edit_json(lambda m: m.update(accuracy=10**400)), "accuracy is not a number"),
        ("metrics.json", edit_json(lambda m: m.update(accuracy=m["accuracy"] - 0.1)), "does not belong to"),
        ("metrics.json", edit_json(lambda m: m.update(photos=59)), "does not belong to"),
        ("predictions.csv", Path.unlink, "is missing"),
        ("predictions.csv", lambda file: (file.unlink(), file.mkdir()), "cannot be read"),
        ("predictions.csv", lambda file: file.write_text(""), "is damaged"),
        ("predictions.csv", edit_text("images/photo-001.png", '"images/photo"-001.png'), "is damaged"),
        ("predictions.csv", edit_text("Dress,Pants", "Pants,Dress"), "its columns are not"),
        ("predictions.csv", edit_text("\nimages/photo-001.png", "\nimages/photo-000.png"), "has a photo twice"),
        ("predictions.csv", edit_text("path,label", "label,path"), "its columns are not"),
        ("predictions.csv", edit_text(",Pants,s1,", ",Trousers,s1,"), "is damaged"),
        ("predictions.csv", edit_text(",Pants,s1,0,", ",Pants,s1,first,"), "is damaged"),
        ("predictions.csv", edit_text(",Pants,s1,0,", f",Pants,s1,{10**30},"), "is damaged"),
        ("predictions.csv", lambda file: file.write_bytes(file.read_bytes()[:-30]), "is damaged"),
        ("curves.csv", edit_text("0.001", "soon,"), "rows of different lengths"),
        ("curves.csv", edit_text("train_loss", "loss"), "is damaged"),
        ("curves.csv", edit_text("\n0,1,", "\n0,first,"), "is damaged"),
        ("evidence.npy", lambda file: file.write_bytes(file.read_bytes()[:200]), "is damaged"),
        ("evidence.npy", lambda file: np.save(file, np.zeros((59, 2, 4, 3), np.float16)), "not float16 [60, 2"),
        (
            "evidence.npy",
            lambda file: np.save(file, np.zeros((60, 3, 4, 3), np.float16)),
            "[60, 3, 4, 3], not",
        ),
        ("evidence.npy", lambda file: np.save(file, np.zeros((60, 2, 4), np.float16)), "[60, 2, 4], not"),
        (
            "evidence.npy",
            lambda file: np.save(file, np.zeros((60, 2, 0, 3), np.float16)),
            "[60, 2, 0, 3], not",
        ),
        ("evidence.npy", lambda file: np.save(file, np.zeros((60, 2, 4, 3), np.float64)), "holds float64"),
        ("evidence.npy", lambda file: np.save(file, np.array([print], object), allow_pickle=True), "is damaged"),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    copied: Path, name: str, damage: Callable[[Path], object], said: str
) -> None:
    damage(copied / name)
    with pytest.raises(ComparisonError, match=re.escape(said)) as caught:
        read_run(copied)
    assert str(copied) in str(caught.value)


def test_a_run_of_no_photos_is_none(copied: Path) -> None:
    file = copied / "predictions.csv"
    file.write_text(file.read_text("utf-8").partition("\n")[0], "utf-8")
    edit_json(lambda metrics: metrics.update(photos=0, accuracy=0))(copied / "metrics.json")
    with pytest.raises(ComparisonError, match="does not belong to"):
        read_run(copied)


@pytest.mark.parametrize("wrong", ["nan", "1.5"])
def test_a_probability_that_is_none_is_refused(copied: Path, wrong: str) -> None:
    file = copied / "predictions.csv"
    file.write_text(re.sub(r"0\.\d{6}\n", f"{wrong}\n", file.read_text("utf-8"), count=1), "utf-8")
    with pytest.raises(ComparisonError, match="do not add up to 1"):
        read_run(copied)


def test_an_unfinished_run_is_told_how_to_go_on(copied: Path) -> None:
    (copied / "metrics.json").unlink()
    with pytest.raises(ComparisonError, match="repeat its command to finish or mend it"):
        read_run(copied)


def test_a_damaged_run_is_told_which_command_makes_it_again(copied: Path) -> None:
    (copied / "predictions.csv").unlink()
    with pytest.raises(ComparisonError, match=r"repeat its command: clothing crossval custom-cnn --folds random$"):
        read_run(copied)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["config.json", "metrics.json", "predictions.csv", "curves.csv", "evidence.npy"]),
    place=st.floats(0, 1),
    content=st.binary(max_size=12) | st.sampled_from([b"null", b"{}", b'"', b"-1", b"1e999", b"\r\n", b",,"]),
    cut=st.integers(0, 30),
)
def test_damage_anywhere_is_a_run_or_an_error_that_names_it(
    folder: Path, tmp_path: Path, name: str, place: float, content: bytes, cut: int
) -> None:
    copied = tmp_path / "damaged"
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    whole = (copied / name).read_bytes()
    start = int(place * len(whole))
    (copied / name).write_bytes(whole[:start] + content + whole[start + cut :])
    try:
        run = read_run(copied)
    except ComparisonError as error:
        assert str(copied) in str(error)  # noqa: PT017
    else:
        full_table([run.result])
        contest([run])


def test_a_run_against_itself_is_no_difference(make: Make) -> None:
    one, other = make(0.8), make(0.8)
    found = contest([one, other]).difference(one, other)
    assert (found.value, found.low, found.high, found.clear) == (0, 0, 0, False)


def test_a_better_run_is_clearly_better_and_a_lucky_one_is_not(make: Make) -> None:
    good, bad, lucky = make(0.95, 1), make(0.5, 2), make(0.95, 3)
    met = contest([bad, good, lucky])
    found = met.difference(good, bad)
    assert found.clear
    assert found.low < found.value < found.high
    back = met.difference(bad, good)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert back.clear
    assert not met.difference(good, lucky).clear
    assert met.ranked("random")[-1] is bad
    assert met.ranked("sender") == []
    favoured = replace(bad, result=Result(bad.result.config, {**bad.result.metrics, "weighted_f1": 1.0}))
    assert contest([good, favoured]).ranked("random") == [favoured, good], "by weighted F1, whatever else is better"


def test_the_interval_is_that_of_the_paired_difference(tmp_path: Path) -> None:
    data = runs.draw(tmp_path / "data", photos=400, senders=400)
    first, second = (
        read_run(runs.write_run(tmp_path / str(seed), data, runs.guess(data, skill, seed), evidence=False))
        for seed, skill in ((1, 0.9), (2, 0.8))
    )
    met = contest([first, second])
    assert met.units == 400
    found = met.difference(first, second, "accuracy")
    paired = (first.predicted == first.truth).astype(float) - (second.predicted == second.truth)
    error = paired.std() / np.sqrt(len(paired))
    assert found.value == pytest.approx(paired.mean(), abs=1e-3)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_senders_whose_photos_are_alike_make_the_interval_wider(tmp_path: Path) -> None:
    data = runs.draw(tmp_path / "data", photos=200, senders=10)
    sure, unsure = runs.guess(data, 1.0), runs.guess(data, 1.0, 1)
    unsure[[sender in ("s1", "s2") for sender in data.senders]] = (0.1, 0.2, 0.3, 0.4)
    unknown = data._replace(senders=("",) * len(data.senders))
    widths = {}
    for name, known in (("senders", data), ("photos", unknown)):
        one = read_run(runs.write_run(tmp_path / name / "1", known, sure, evidence=False))
        two = read_run(runs.write_run(tmp_path / name / "2", known, unsure, evidence=False))
        met = contest([one, two])
        assert met.by_sender == (name == "senders")
        assert met.units == (10 if name == "senders" else 200)
        found = met.difference(one, two, "accuracy")
        widths[name] = found.high - found.low
    assert widths["senders"] > 2 * widths["photos"]


def test_a_photo_whose_sender_nobody_knows_is_drawn_alone(make: Make, data: runs.Data) -> None:
    """Half of the 60 photos have one of two senders, who is called like one of the others."""
    senders = ["" if number % 2 else data.paths[number % 4 + 1] for number in range(60)]
    met = contest([make(0.8, data=data._replace(senders=tuple(senders)))])
    assert (met.units, met.by_sender) == (2 + 30, True)


def test_chance_is_the_same_each_time(make: Make) -> None:
    one, two = make(0.9, 1), make(0.7, 2)
    assert contest([one, two]).difference(one, two) == contest([one, two]).difference(one, two)


def test_only_runs_of_the_same_photos_and_classes_meet(make: Make, data: runs.Data, tmp_path: Path) -> None:
    fewer = runs.draw(tmp_path / "fewer", photos=40)
    one, two, stranger = make(0.9), make(0.8, protocol="sender"), make(0.99, data=fewer)
    assert contest([stranger, one, two]).runs == (one, two)
    assert contest([stranger, one]).runs == (one,), "of as many runs, those of more photos"
    assert not one.same_task(stranger)
    renamed = make(0.9, data=data._replace(labels=("Dress", "Pants", "Shirt", "Skort")))
    relabelled = make(0.9, data=data._replace(truth=(1, *data.truth[1:])))
    assert not one.same_task(renamed)
    assert not one.same_task(relabelled)
    assert contest([relabelled, renamed, one, two]).runs == (one, two)
    with pytest.raises(ValueError, match="no runs"):
        contest([])


def plant(data: runs.Data, place: int, label: int, sure: float, seed: int) -> Any:
    """Probabilities that are right everywhere but at one place, where they say something else."""
    probabilities = runs.guess(data, 1.0, seed)
    probabilities[place] = (1 - sure) / (len(data.labels) - 1)
    probabilities[place, label] = sure
    return probabilities


def planted(tmp_path: Path, data: runs.Data, *said: tuple[str, str, int, float]) -> list[Run]:
    return [
        read_run(runs.write_run(tmp_path / f"run-{i}", data, plant(data, 8, label, sure, i), approach, protocol))
        for i, (approach, protocol, label, sure) in enumerate(said)
    ]


def test_a_label_that_approaches_agree_against_is_found(tmp_path: Path, data: runs.Data) -> None:
    (doubt,) = find_doubts(planted(tmp_path, data, ("a", "random", 2, 0.95), ("b", "random", 2, 0.85)))
    assert (doubt.path, doubt.label, doubt.suggested) == (data.paths[8], "Dress", "Shirt")
    assert (doubt.agreeing, doubt.asked) == (2, 2)
    assert doubt.probability == pytest.approx(0.9)


def test_only_those_that_agree_count_and_an_approach_counts_once(tmp_path: Path, data: runs.Data) -> None:
    said = [("a", "random", 2, 0.95), ("a", "sender", 2, 0.95), ("b", "random", 2, 0.8), ("c", "random", 0, 0.5)]
    (doubt,) = find_doubts(planted(tmp_path, data, *said))
    assert (doubt.agreeing, doubt.asked) == (2, 3)
    assert doubt.probability == pytest.approx(0.9)


def test_first_come_labels_that_most_agree_against_and_then_the_surest(make: Make, data: runs.Data) -> None:
    """Of three approaches, all doubt two labels; of a third label two do, and these are surer."""
    folder = make(0.9).folder.parent
    read = []
    for number, approach in enumerate(("a", "b", "c")):
        probabilities = runs.guess(data, 1.0, number)
        for place, sure in ((4, 0.85), (8, 0.94), (12, 0.97)):
            if place != 12 or approach != "c":
                probabilities[place] = ((1 - sure) / 3, (1 - sure) / 3, sure, (1 - sure) / 3)
        read.append(read_run(runs.write_run(folder / approach, data, probabilities, approach)))
    assert [(doubt.path, doubt.agreeing) for doubt in find_doubts(read)] == [
        (data.paths[8], 3),
        (data.paths[4], 3),
        (data.paths[12], 2),
    ]


@pytest.mark.parametrize(
    "said",
    [
        [("a", "random", 2, 0.95)],
        [("a", "random", 2, 0.95), ("a", "sender", 2, 0.95)],
        [("a", "random", 2, 0.95), ("b", "random", 3, 0.95)],
        [("a", "random", 2, 0.79), ("b", "random", 2, 0.79)],
        [("a", "random", 2, 0.95), ("b", "random", 2, 0.95), ("c", "random", 3, 0.9), ("d", "random", 3, 0.9)],
        [("a", "random", 2, 0.95), ("b", "random", 2, 0.95), ("b", "sender", 0, 0.9)],
        [("a", "random", 0, 0.95), ("b", "random", 0, 0.95)],
    ],
    ids=["one run", "one approach", "disagreement", "unsure", "half", "not in both protocols", "with the label"],
)
def test_a_label_is_not_doubted_lightly(
    tmp_path: Path, data: runs.Data, said: list[tuple[str, str, int, float]]
) -> None:
    assert find_doubts(planted(tmp_path, data, *said)) == []


def test_runs_of_other_weights_never_share_a_name(make: Make) -> None:
    made = [
        make(0.9, 1, approach="a", weights="file: one.safetensors"),
        make(0.5, 2, approach="a", protocol="sender", weights="file: two.safetensors"),
        make(0.5, 3, approach="a", weights="hub: three"),
        make(0.5, 4, approach="b"),
        make(0.5, 5, approach="b", protocol="sender"),
    ]
    assert name_runs([run.result for run in made]) == ["a (one)", "a (two)", "a (three)", "b", "b"]


def cells(line: str) -> list[str]:
    assert line.startswith("| ")
    assert line.endswith(" |")
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_whole_table_has_every_figure(make: Make) -> None:
    one, two = make(0.9, 1), make(0.7, 2, approach="resnet50", protocol="sender", weights="file: b.safetensors")
    head, rule, first, second, *published = map(cells, full_table([one.result, two.result]).splitlines())
    assert len(head) == len(rule) == 13
    assert all(len(row) == 13 for row in (first, second, *published))
    metrics = one.result.metrics
    assert first[0:3] == ["custom-cnn", "none", "random folds"]
    assert first[3] == f"{metrics['mean']['weighted_f1']:.3f} ± {metrics['std']['weighted_f1']:.3f}"
    for cell, name in zip(first[4:7], SCORES, strict=True):
        low, high = metrics["intervals"][name]
        assert cell == f"{metrics[name]:.3f} ({low:.2f}–{high:.2f})"
    assert first[7] == f"{metrics['subsets']['top10']['weighted_f1']:.3f}"
    assert first[8:] == ["2.2 M", "310 M", "8.9 MB", "9.1", "1 h 20 min"]
    assert second[0:3] == ["resnet50", "b", "sender folds"]
    assert not published


def test_ten_classes_are_scored_as_the_top_ten(make: Make, tmp_path: Path) -> None:
    ten = runs.draw(tmp_path / "ten", labels=TOP_10)
    run = make(0.9, data=ten)
    assert run.result.top_10("weighted_f1") == run.result.metrics["weighted_f1"]
    run = make(0.9, data=runs.draw(tmp_path / "all", labels=CLASSES))
    assert run.result.top_10("weighted_f1") == run.result.metrics["subsets"]["top10"]["weighted_f1"]


def test_what_was_not_measured_is_an_empty_cell(make: Make) -> None:
    whole = make(0.9).result
    bare = Result(whole.config, {name: whole.metrics[name] for name in SCORES})
    row = cells(full_table([bare]).splitlines()[2])
    assert row[3] == ""
    assert row[4] == f"{whole.metrics['weighted_f1']:.3f}"
    assert row[7:] == [""] * 6
    for cost in (
        {"parameters": True, "bytes": "big", "milliseconds": [1]},
        {"parameters": float("nan"), "bytes": float("inf"), "multiply_adds": 10**400},
        None,
    ):
        assert set(costs(Result(whole.config, {**whole.metrics, "cost": cost})).values()) == {""}
    half = Result(whole.config, {**whole.metrics, "intervals": {"weighted_f1": [0.8]}, "std": {}})
    row = cells(full_table([half]).splitlines()[2])
    assert row[3:5] == [f"{half.metrics['mean']['weighted_f1']:.3f}", f"{half.metrics['weighted_f1']:.3f}"]
    unsaid = Result({"approach": "a", "protocol": "random"}, bare.metrics)
    assert (unsaid.weights, unsaid.digest, unsaid.command) == ("", "", None)


@pytest.mark.parametrize(
    ("cost", "shown"),
    [
        ({"parameters": 999_400, "multiply_adds": 1e9, "bytes": 1.22e9}, ["999 k", "1 G", "1220 MB"]),
        ({"parameters": 999_700, "multiply_adds": 1.3e12, "milliseconds": 1234}, ["1 M", "1300 G", "1234"]),
        ({"parameters": 1000, "multiply_adds": 999, "training_seconds": 60}, ["1 k", "999", "1 min"]),
        ({"milliseconds": 0.123, "training_seconds": 3600}, ["0.123", "1 h 0 min"]),
        ({"training_seconds": 110}, ["2 min"]),
    ],
)
def test_what_a_model_costs_is_told_in_numbers_for_people(cost: dict[str, float], shown: list[str]) -> None:
    assert [text for text in costs(Result({}, {"cost": cost})).values() if text] == shown


def test_other_data_is_marked(make: Make) -> None:
    one, two = make(0.9), make(0.8, digest="0ther" * 12, approach="resnet50")
    rows = full_table([one.result, two.result]).splitlines()
    assert "other data" not in rows[2]
    assert "resnet50 (other data: 0ther0th)" in rows[3]
    short = table([one.result, two.result], links={1: "two.json"}).splitlines()
    assert "other data" not in short[2]
    assert cells(short[3])[0] == "[`resnet50`](two.json) (other data: 0ther0th)"


@settings(deadline=None)
@given(st.text(), st.text())
def test_no_name_breaks_a_table(approach: str, weights: str) -> None:
    config = {"approach": approach or "-", "protocol": "random", "labels": ["a"], "weights": {"source": weights}}
    result = Result(config, dict.fromkeys(SCORES, 0.5))
    for text, columns in ((full_table([result]), 13), (table([result]), 6)):
        assert all(len(cells(line)) == columns for line in text.splitlines())
        assert "<" not in text
        assert "|  |" not in text, "an empty cell is one blank wide"
        text.encode()
    assert cells(table([result]).splitlines()[2])[0].count("`") == 2


def test_the_short_table_has_rows_for_what_has_no_run(make: Make) -> None:
    one, two = make(0.9), make(0.8, approach="resnet50", protocol="sender")
    text = table(
        [two.result, one.result],
        order=["custom-cnn", "convnext-tiny", "resnet50"],
        missing={"convnext-tiny": "no weights at hand", "mobilenetv2": "no weights at hand", "vit": "no time"},
        links={0: "results/resnet50-sender.json"},
    )
    rows, *notes = text.split("\n\n")
    assert notes == ["<sup>1</sup> no weights at hand", "<sup>2</sup> no time"]
    read = [cells(line) for line in rows.splitlines()[2:]]
    assert [row[0] for row in read[:5]] == [
        "`custom-cnn`",
        "`convnext-tiny` <sup>1</sup>",
        "[`resnet50`](results/resnet50-sender.json)",
        "`mobilenetv2` <sup>1</sup>",
        "`vit` <sup>2</sup>",
    ]
    assert read[1][1:] == [""] * 5
    assert read[2][2] == "sender"
    assert len(read) == 5
    twice = table([make(0.8, protocol=protocol).result for protocol in ("sender", "random")])
    assert [cells(line)[2] for line in twice.splitlines()[2:]] == ["sender", "random"], "as they were given"


@pytest.mark.parametrize("labels", [CLASSES, TOP_10])
def test_others_figures_stand_below_runs_of_the_same_classes(
    make: Make, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    results = [make(0.9).result, make(0.8, data=runs.draw(tmp_path / "data", photos=170, labels=labels)).result]
    others = [line for line in full_table(results).splitlines() if "published](https://" in line]
    assert len(others) == len(PUBLISHED)
    shown = {tuple(row[i] for i in (1, 4, 5, 6, 7)) for row in map(cells, others)}
    assert shown >= {("ImageNet", "0.88", "", "", ""), ("ImageNet", "", "0.857", "0.884", "0.89")}
    others = [line for line in table(results).splitlines() if "published](https://" in line]
    assert len(others) == sum("weighted_f1" in row.figures for row in PUBLISHED)
    assert {tuple(row[3:]) for row in map(cells, others)} >= {("0.88", "", ""), ("0.89", "0.857", "0.884")}
    assert "published" not in full_table(results[:1]) + table(results[:1])


def test_what_is_published_names_its_source() -> None:
    for row in PUBLISHED:
        assert row.address.startswith("https://github.com/")
        assert row.figures.keys() <= SCORES.keys()
        assert all(0.5 < figure < 1 for figure in row.figures.values())
    assert PUBLISHED[0].figures == {"weighted_f1": 0.88}
