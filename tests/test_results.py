from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="needs the extra train")

from clothing_classifier.card import read_model
from clothing_classifier.evaluation.metrics import score
from clothing_classifier.runs.judgement import read_judgement

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "results" / "model.json"
STRANGERS = ROOT / "results" / "strangers.json"
FOLDS = sorted(set((ROOT / "results").glob("*.json")) - {MODEL, STRANGERS})
RUNS = sorted((ROOT / "results" / "runs").glob("*.zip"))


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def read_words(page: str) -> str:
    """Return a page's text with a single space between words, wherever its lines end."""
    return " ".join((ROOT / page).read_text("utf-8").split())


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    return load(ROOT / "results" / "collect.py")


def test_the_readme_says_what_the_results_say(collect: ModuleType) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert FOLDS
    assert collect.make_folds_table() in text
    card = (ROOT / "docs" / "model.md").read_text("utf-8")
    for name in ("groups", "classes", "confusions", "strangers"):
        assert getattr(collect, f"make_{name}_table")() in card


@pytest.mark.parametrize("file", FOLDS, ids=lambda file: file.stem)
def test_folds_name_their_protocol_command_commit_and_data(file: Path) -> None:
    facts = json.loads(file.read_text("utf-8"))
    config, metrics = facts["config"], facts["metrics"]
    assert file.stem == f"{config['approach']}-{config['protocol']}"
    command = metrics["training"]["command"]
    assert command.startswith(f"clothing crossval {config['approach']} --data ")
    assert f"--folds {config['protocol']}" in command
    assert metrics["training"]["commit"]
    assert "dirty" not in metrics["training"]["commit"], "the figures come from code that is in the history"
    assert len(config["data"]["digest"]) == 64
    assert metrics["photos"] == config["data"]["photos"] == sum(c["photos"] for c in metrics["per_class"].values())
    matrix = np.array(metrics["confusion"])
    assert {name: metrics[name] for name in ("accuracy", "weighted_f1", "macro_f1")} == score(matrix)
    assert sum(row["photos"] for row in metrics["folds"]) == metrics["photos"]


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_a_run_that_is_kept_gives_the_figures(file: Path) -> None:
    facts = json.loads((ROOT / "results" / f"{file.stem}.json").read_text("utf-8"))
    labels = facts["config"]["labels"]
    with ZipFile(file) as packed:
        for name in ("config", "metrics"):
            assert json.loads(packed.read(f"{file.stem}/{name}.json")) == facts[name]
        rows = list(csv.DictReader(packed.read(f"{file.stem}/predictions.csv").decode("utf-8").splitlines()))
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    for row in rows:
        assert row["predicted"] == max(labels, key=lambda label: float(row[label]))
        matrix[labels.index(row["label"]), labels.index(row["predicted"])] += 1
    assert matrix.tolist() == facts["metrics"]["confusion"]
    if facts["config"]["protocol"] == "sender":
        assert len({(row["sender"], row["fold"]) for row in rows}) == len({row["sender"] for row in rows})


def test_all_folds_are_of_the_same_photos() -> None:
    configs = [json.loads(file.read_text("utf-8"))["config"] for file in FOLDS]
    assert len({config["data"]["digest"] for config in configs}) == 1
    assert {(config["folds"], config["seed"]) for config in configs} == {(5, 0)}


def test_the_shipped_models_card_says_what_the_folds_measured() -> None:
    card = read_model().card
    facts = json.loads(MODEL.read_text("utf-8"))
    assert facts["metrics"] == card.metrics
    assert facts["promise"] == card.promise
    assert "dirty" not in facts["commit"], "the model comes from code that is in the history"
    for protocol, figures in card.metrics.items():
        measured = json.loads((ROOT / "results" / f"{card.name}-{protocol.split()[0]}.json").read_text("utf-8"))
        for name in ("photos", "weighted_f1", "macro_f1", "accuracy", "expected_calibration_error", "per_class"):
            assert figures[name] == measured["metrics"][name]


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    return load(ROOT / "results" / "model.py")


def test_the_command_that_makes_the_model_names_what_it_was_made_from(maker: ModuleType) -> None:
    """`results/model.py` refuses other photos and weights than the card's."""
    card = read_model().card
    assert card.data["digest"] == maker.DATA
    assert card.training["approach"] == maker.APPROACH
    assert list(card.metrics) == [f"{maker.PROTOCOL} folds"]
    assert card.training["command"].startswith(f"clothing train {maker.APPROACH} --data ")
    assert card.weights["sha256"] == maker.SHA256
    assert card.weights["licence"] == maker.LICENCE
    assert card.weights["source"] == f"file: {maker.WEIGHTS}"


def test_other_weights_make_no_shipped_model_unasked(maker: ModuleType, tmp_path: Path) -> None:
    for name in ("dress", "hat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(ROOT / "examples" / f"{name}.jpg", tmp_path / "data" / name)
    (tmp_path / "weights").mkdir()
    words = [str(ROOT / "results" / "model.py"), "--data", "data", "--weights", "weights"]

    def make() -> str:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 1
        assert not (tmp_path / "runs").exists()
        return done.stderr

    assert f"weights: has no {maker.WEIGHTS}; name the folder that has it" in make()
    (tmp_path / "weights" / maker.WEIGHTS).write_bytes(b"1")
    said = make()
    assert f"{maker.WEIGHTS} has the SHA-256" in said
    assert "data has the digest" in said


def test_what_is_said_of_sure_answers_is_what_was_measured() -> None:
    promise = read_model().card.promise
    said = f"names {promise['share']:.0%} of the photos and is right in {promise['measured_accuracy']:.1%} of them"
    for page in ("README.md", "docs/model.md"):
        assert said.replace("%", " %") in read_words(page)


def test_the_promise_is_what_the_run_that_was_kept_shows(tmp_path: Path) -> None:
    card = read_model().card
    run = tmp_path / f"{card.training['approach']}-sender"
    with ZipFile(ROOT / "results" / "runs" / f"{run.name}.zip") as packed:
        packed.extractall(tmp_path)
    assert read_judgement([run], json.loads((run / "config.json").read_text("utf-8"))).promise == card.promise
    low, high = card.promise["interval"]
    for page in ("docs/model.md", "README.md"):
        assert f"95 % interval {100 * low:.1f} to {100 * high:.1f} %" in read_words(page)


def test_what_is_said_of_strangers_is_what_was_measured() -> None:
    facts = json.loads(STRANGERS.read_text("utf-8"))
    card = read_model().card
    assert facts["model"]["created"] == card.created, "measured on the model that ships"
    assert facts["threshold"] == card.threshold
    assert facts["garments"] == card.promise["share"]
    for name, row in facts["strangers"].items():
        assert 1 - row["named"] >= 2 * (1 - facts["garments"]), "far more often not sure than of a garment"
        if name != "dataset's Other":  # scarves and swimwear among them: garments, though of no class
            assert row["named"] < facts["garments"] / 2
    residual = card.training["residual"]
    assert f"stay below {residual['limit']:.2f}" in read_words("docs/model.md")
    assert f"first {residual['dimensions']} principal components" in read_words("docs/model.md")
    others = [row for name, row in facts["strangers"].items() if name not in ("dataset's Other", "drawn")]
    pictures = sum(row["pictures"] for row in others)
    named = sum(row["pictures"] * row["named"] for row in others) / pictures
    assert f"of {pictures:,} pictures without a garment it names {named:.0%}".replace("%", " %") in read_words(
        "README.md"
    )


def test_frozen_features_reach_what_they_should() -> None:
    """Floors of the comparison: a change that breaks the features or the head shows here."""
    floors = {"efficientnet-b0-frozen-random": 0.85, "efficientnet-b0-frozen-sender": 0.82}
    for name, floor in floors.items():
        facts = json.loads((ROOT / "results" / f"{name}.json").read_text("utf-8"))
        assert facts["metrics"]["weighted_f1"] > floor


def test_the_command_that_makes_everything_says_beforehand_what_it_takes(tmp_path: Path) -> None:
    for label, names in (("Dress", ("dress", "body", "skirt")), ("Hat", ("hat", "polo", "shirt"))):
        (tmp_path / "data" / label).mkdir(parents=True)
        for name in names:
            shutil.copy(ROOT / "examples" / f"{name}.jpg", tmp_path / "data" / label)
    words = ["--data", str(tmp_path / "data"), "--only", "custom-cnn", "--only", "resnet50", "--weights", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "results" / "run.py"), *words, "--out", str(tmp_path / "runs")],
        input="n\n",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert f"resnet50                left out: {tmp_path}/resnet50.safetensors: cannot be read" in done.stderr
    assert "custom-cnn              about" in done.stderr
    assert "minutes on this machine" in done.stderr
    assert not (tmp_path / "runs").exists()


class Everything:
    """`results/run.py` with the runs themselves left out; what it would have run is written down."""

    def __init__(self, module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module, self.folder = module, folder
        self.failing: set[str] = set()
        self.ran: list[str] = []
        self.collected: list[str] = []
        monkeypatch.setattr(module, "find_fault", lambda approach, weights: None)
        monkeypatch.setattr(module, "estimate", lambda *_: 60.0)
        monkeypatch.setattr(module, "write_table", lambda runs: self.collected.extend(run.name for run in runs))
        monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=self.run))

    def run(self, command: list[str], check: bool) -> SimpleNamespace:
        assert not check
        name = Path(command[command.index("--out") + 1]).name
        self.ran.append(f"{command[3]} {name}")
        return SimpleNamespace(returncode=2 * (name in self.failing))

    def __call__(self, *words: str) -> Result:
        given = ["--data", str(self.folder / "data"), "--out", str(self.folder / "runs"), "--yes", *words]
        return CliRunner().invoke(self.module.main, given)


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Everything:
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    (tmp_path / "data" / "images").mkdir(parents=True)
    for name in ("dress", "hat"):
        shutil.copy(ROOT / "examples" / f"{name}.jpg", tmp_path / "data" / "images")
    (tmp_path / "data" / "images.csv").write_text("image,sender_id,label,kids\ndress,1,Dress,False\nhat,2,Hat,False\n")
    return Everything(load(ROOT / "results" / "run.py"), tmp_path, monkeypatch)


CHOSEN = ("custom-cnn", "mobilenetv2")


def test_a_failed_run_costs_no_other_and_what_ran_is_written(everything: Everything) -> None:
    everything.failing = {"custom-cnn-random", "mobilenetv2-random"}
    done = everything(*(word for name in CHOSEN for word in ("--only", name)))
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "failed, for the reasons above: custom-cnn-random, mobilenetv2-random" in done.stderr
    crossvals = [f"{name}-{protocol}" for name in CHOSEN for protocol in ("random", "sender")]
    assert everything.ran == [f"crossval {name}" for name in crossvals]
    assert everything.collected == [name for name in crossvals if name not in everything.failing]


def test_photos_without_senders_are_cross_validated_in_random_folds(everything: Everything) -> None:
    table = everything.folder / "data" / "images.csv"
    table.write_text("image,label\ndress,Dress\nhat,Hat\n")
    done = everything("--only", "custom-cnn")
    assert done.exit_code == 0, done.output
    assert everything.ran == ["crossval custom-cnn-random"]
    assert "names no senders" in done.stderr


def test_what_cannot_be_run_is_said_beforehand(everything: Everything, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything.module, "find_fault", lambda approach, weights: approach.backbone and "no hub")
    done = everything(*(word for name in CHOSEN for word in ("--only", name)))
    assert done.exit_code == 0, done.output
    assert everything.ran == ["crossval custom-cnn-random", "crossval custom-cnn-sender"]
    assert "mobilenetv2             left out: no hub" in done.stderr
    for words, reason in (
        (("--only", "mobilenetv2"), "no approach is left"),
        (("--device", "abacus"), "there is no device 'abacus'"),
        (("--data", str(everything.folder / "data" / "images")), "put each class into a folder"),
    ):
        done = everything(*words)
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit)
        assert reason in done.stderr
    assert len(everything.ran) == 2


def test_the_pages_on_speed_say_what_was_measured() -> None:
    for file, made in load(ROOT / "benchmarks" / "tables.py").tables().items():
        text = file.read_text("utf-8")
        for mark, table in made.items():
            assert f"<!-- {mark} -->\n\n{table}\n\n<!-- /{mark} -->" in text
    for file in (ROOT / "results" / "speed").glob("*.json"):
        machine = json.loads(file.read_text("utf-8"))["machine"]
        assert machine["cpu"]
        assert machine["versions"]["clothing-classifier"]


def test_what_failed_leaves_its_cells_empty() -> None:
    tables = load(ROOT / "benchmarks" / "tables.py")
    measured = json.loads((ROOT / "results" / "speed" / "predict.json").read_text("utf-8"))
    makers = (*tables.TABLES["predict"].values(), tables.readme_table)
    whole = [make(measured) for make in makers]
    for row in (*measured["rates"], *measured["limits"], *measured["growth"], measured["first"]):
        row.update((key, None) for key in row.keys() - {*tables.KEYS, "photos"})
    for make, table in zip(makers, whole, strict=True):
        assert len(make(measured).splitlines()) == len(table.splitlines())
    measured["rates"] = [row for row in measured["rates"] if row["tool"] == "timm"]
    for make in makers:
        assert make(measured)


def test_the_readme_says_how_long_own_classes_take() -> None:
    measured = json.loads((ROOT / "results" / "speed" / "own.json").read_text("utf-8"))
    assert (measured["classes"], measured["machine"]["cores"]) == (3, 2)
    said = f"{measured['photos']} photos of three classes took {measured['seconds']:.0f} seconds on two cores"
    assert said in read_words("README.md")


def test_the_readme_says_what_the_service_does_under_load() -> None:
    measured = json.loads((ROOT / "results" / "service" / "load.json").read_text("utf-8"))
    ours, plain, litserve = (row for row in measured["results"] if row["clients"] == 16)
    assert [row["server"] for row in (ours, plain, litserve)] == ["service", "plain", "litserve"]
    shares = [f"{row['share_of_offline']:.0%}".replace("%", " %") for row in (ours, plain, litserve)]
    tails = [f"{row['p99_over_p50']:g}" for row in (ours, plain, litserve)]
    said = (
        f"16 clients get {shares[0]} of what `predict` does without a service, with the 99th percentile at "
        f"{tails[0]} times the median (a plain FastAPI handler without batching: {shares[1]} and {tails[1]}; "
        f"LitServe: {shares[2]} and {tails[2]}; one run"
    )
    assert said in read_words("README.md")
