"""Runs → `results/*.json` and the table in the README.

    python results/collect.py runs/custom-cnn-random runs/custom-cnn-sender runs/efficientnet-b0-sender

Each run's model file carries its own figures, data and command; this copies them and computes nothing. Without runs, it
writes the README's table from the results that are there. A test holds the two together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clothing_classifier.card import read_model

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
START, END = "<!-- figures -->", "<!-- /figures -->"

PUBLISHED = (
    ("custom CNN (published)", "none", "random", "0.66"),
    ("ResNet50 (published)", "ImageNet", "random", "0.61"),
    ("ConvNeXt-Tiny, frozen, 5 folds (published)", "ImageNet", "random", "0.88"),
)


def collect(run: Path) -> Path:
    """Write one run's facts as ``results/APPROACH-SPLIT.json`` and return that file."""
    card = read_model(run / "model.onnx").card
    split = json.loads((run / "config.json").read_text("utf-8"))["split"]
    facts = {
        "approach": card.name,
        "split": split,
        "weights": card.weights,
        "data": card.data,
        "training": card.training,
        "version": card.version,
        "commit": card.commit,
        "promise": card.promise,
        "metrics": card.metrics,
    }
    target = HERE / f"{card.name}-{split}.json"
    target.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return target


def make_table() -> str:
    """Return the README's table, in Markdown, from all results."""
    rows = [
        "| approach | weights | split | weighted F1 | macro F1 | accuracy |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for file in sorted(HERE.glob("*.json")):
        facts = json.loads(file.read_text("utf-8"))
        test = facts["metrics"]["test"]
        cells = [f"[`{facts['approach']}`](results/{file.name})", describe_weights(facts["weights"]), facts["split"]]
        rows.append(
            "| " + " | ".join([*cells, *(figure(test, n) for n in ("weighted_f1", "macro_f1", "accuracy"))]) + " |"
        )
    rows += [f"| {name} | {weights} | {split} | {f1} | | |" for name, weights, split, f1 in PUBLISHED]
    return "\n".join(rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def figure(test: dict[str, Any], name: str) -> str:
    """Return one figure with its interval."""
    low, high = test["intervals"][name]
    return f"{test[name]:.3f} ({low:.2f}–{high:.2f})"


def describe_weights(weights: dict[str, Any]) -> str:
    """Return a short name of where the weights came from."""
    return str(weights["source"]).removeprefix("file: ").removesuffix(".safetensors")


def main() -> None:
    """Collect the runs named on the command line, and write the table."""
    for name in sys.argv[1:]:
        print(collect(Path(name)).relative_to(HERE.parent))
    text = README.read_text("utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{START}\n\n{make_table()}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
