"""Runs → `results/*.json` and the table in the README.

    python results/collect.py runs/efficientnet-b0-frozen-random runs/efficientnet-b0-frozen-sender ...

Each run's folder says what it was and what it measured; this copies it and computes nothing. Without runs, it writes
the README's table from the results that are there. A test holds the two together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from clothing_classifier.card import read_model
from clothing_classifier.evaluation.comparison import PUBLISHED, Result, read_result, table
from clothing_classifier.training.approaches import APPROACHES

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
START, END = "<!-- figures -->", "<!-- /figures -->"
SHIPPED = "shipped.json"

NO_WEIGHTS = (
    "Not measured yet: its pretrained weights come from the hub, which was out of reach where these figures were made, "
    "and from nothing it would be a straw man. `make results` measures it where the hub is in reach."
)
NO_TIME = "Not measured yet in folds; `make results` measures it."


def collect(run: Path) -> Path:
    """Write one run's facts below ``results/`` and return that file.

    A cross-validation's is called ``APPROACH-PROTOCOL.json``; that of a run with a model file ``shipped.json``.
    """
    if (run / "model.onnx").exists():
        card = read_model(run / "model.onnx").card
        facts: dict[str, Any] = {
            "approach": card.name,
            "weights": card.weights,
            "data": card.data,
            "training": card.training,
            "version": card.version,
            "commit": card.commit,
            "promise": card.promise,
            "metrics": card.metrics,
        }
        target = HERE / SHIPPED
    else:
        result = read_result(run)
        facts = {"config": result.config, "metrics": result.metrics}
        target = HERE / f"{result.approach}-{result.protocol}.json"
    target.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return target


def read_results() -> dict[str, Result]:
    """Return the cross-validations' results by file name, in the order of the approaches, random folds first."""
    found = {}
    for file in HERE.glob("*.json"):
        if file.name != SHIPPED:
            facts = json.loads(file.read_text("utf-8"))
            found[file.name] = Result(facts["config"], facts["metrics"])
    order = list(APPROACHES)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[1].approach), item[1].protocol)))


def make_table() -> str:
    """Return the README's table, in Markdown, from all results."""
    results = read_results()
    measured = {result.approach for result in results.values()}
    from_hub = {
        name for name, entry in APPROACHES.items() if (entry.backbone or "").startswith(("resnet50", "convnext_tiny"))
    }
    return table(
        list(results.values()),
        order=list(APPROACHES),
        missing={name: NO_WEIGHTS if name in from_hub else NO_TIME for name in APPROACHES if name not in measured},
        links={number: f"results/{name}" for number, name in enumerate(results)},
        published=[row for row in PUBLISHED if "weighted_f1" in row.figures],
    )


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
