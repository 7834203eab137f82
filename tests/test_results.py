from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from clothing_classifier.card import read_model

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "results").glob("*.json"))


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collect", ROOT / "results" / "collect.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_says_what_the_results_say(collect: ModuleType) -> None:
    assert RESULTS
    assert collect.make_table() in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("file", RESULTS, ids=[file.stem for file in RESULTS])
def test_a_result_names_its_protocol_command_commit_and_data(file: Path) -> None:
    facts = json.loads(file.read_text("utf-8"))
    assert facts["training"]["command"].startswith(f"clothing train {facts['approach']} --data ")
    assert facts["commit"]
    assert "dirty" not in facts["commit"], "the figures come from code that is in the history"
    assert len(facts["data"]["digest"]) == 64
    assert facts["split"] in facts["training"]["command"]
    test = facts["metrics"]["test"]
    assert test["photos"] == facts["data"]["parts"]["test"] == sum(c["photos"] for c in test["per_class"].values())
    # The rounded figures follow from the confusion matrix beside them.
    matrix = test["confusion"]
    right = sum(row[i] for i, row in enumerate(matrix))
    assert test["accuracy"] == pytest.approx(right / test["photos"], abs=1e-4)


def test_the_shipped_models_figures_are_among_the_results() -> None:
    card = read_model().card
    results = [json.loads(file.read_text("utf-8")) for file in RESULTS]
    assert card.metrics in [facts["metrics"] for facts in results]


def test_what_the_readme_says_of_sure_answers_is_what_was_measured() -> None:
    sure = read_model().card.metrics["test"]["sure"]
    said = f"it names {sure['share'] * 100:.0f} % of the photos and is right in {sure['accuracy'] * 100:.0f} % of them"
    assert said in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_the_custom_cnn_beats_the_published_one_in_its_protocol() -> None:
    facts = json.loads((ROOT / "results" / "custom-cnn-random.json").read_text("utf-8"))
    assert facts["metrics"]["test"]["weighted_f1"] > 0.66
