"""Runs → the files below `results/`, and the tables in the README and in docs/model.md.

    python results/collect.py runs/efficientnet-b0-frozen-random runs/efficientnet-b0-frozen-sender ...

Each run's folder says what it was and what it measured; this copies it and computes nothing. Without runs, it writes
the tables from the results that are there. A test holds them together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from clothing_classifier.card import read_model
from clothing_classifier.evaluation.comparison import Result, read_result, table
from clothing_classifier.training.approaches import APPROACHES

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
MODEL = HERE / "model.json"
CARD = HERE.parent / "docs" / "model.md"
STRANGERS = HERE / "strangers.json"
RUNS = HERE / "runs"
KEPT = ("*.json", "*.csv", "fold-*.npz")
"""The files of a run that are kept: all but the evidence, which `clothing crossval` puts together again from these."""
CONFUSIONS = 12

OUT_OF_REACH = (
    "Not measured yet: its pretrained weights are on the hub, which could not be reached where these figures were "
    "made, and without them it would be a straw man. `make results` measures it."
)
TO_COME = "Not measured in folds yet; `make results` does it."


def collect(run: Path) -> Path:
    """Write one run's facts below ``results/`` and return that file.

    A cross-validation's is ``APPROACH-PROTOCOL.json``, and ``runs/APPROACH-PROTOCOL.zip`` has its folder, with what was
    said of each photo; that of a model that all photos taught is ``model.json``.

    Raises:
        ValueError: the run's model was judged on a part of one split, which says too little to be kept.
    """
    facts: dict[str, Any]
    if (run / "model.onnx").exists():
        card = read_model(run / "model.onnx").card
        split = json.loads((run / "config.json").read_text("utf-8"))["split"]
        if split != "none":
            raise ValueError(f"{run}: of one split; the results are of folds, see clothing crossval")
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
        target = MODEL
    else:
        result = read_result(run)
        facts = {"config": result.config, "metrics": result.metrics}
        target = HERE / f"{result.approach}-{result.protocol}.json"
        keep(run, RUNS / f"{target.stem}.zip")
    target.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return target


def keep(run: Path, target: Path) -> None:
    """Pack a run's folder, the same bytes for the same files."""
    target.parent.mkdir(exist_ok=True)
    with ZipFile(target, "w") as packed:
        for file in sorted({file for pattern in KEPT for file in run.glob(pattern)}):
            entry = ZipInfo(f"{target.stem}/{file.name}")
            entry.compress_type = ZIP_DEFLATED
            packed.writestr(entry, file.read_bytes(), compresslevel=9)


def read_results() -> dict[str, Result]:
    """Return the cross-validations' results by file name, in the order of the approaches, random folds first."""
    places = {name: number for number, name in enumerate(APPROACHES)}
    found = {}
    for file in set(HERE.glob("*.json")) - {MODEL, STRANGERS}:
        facts = json.loads(file.read_text("utf-8"))
        found[file.name] = Result(facts["config"], facts["metrics"])
    return dict(sorted(found.items(), key=lambda item: (places.get(item[1].approach, len(places)), item[1].protocol)))


def make_folds_table() -> str:
    """Return the README's table of cross-validations, in Markdown."""
    results = read_results()
    measured = {result.approach for result in results.values()}
    from_hub = ("resnet50", "convnext_tiny")
    return table(
        list(results.values()),
        order=list(APPROACHES),
        missing={
            name: OUT_OF_REACH if (entry.backbone or "").startswith(from_hub) else TO_COME
            for name, entry in APPROACHES.items()
            if name not in measured
        },
        links={number: f"results/{name}" for number, name in enumerate(results)},
    )


def make_classes_table() -> str:
    """Return docs/model.md's table of the shipped model's classes, in Markdown; those with the best F1 first."""
    metrics = json.loads(MODEL.read_text("utf-8"))["metrics"]
    strict, random = (metrics.get(name, {}).get("per_class", {}) for name in ("sender folds", "random folds"))
    titles = ["class", "photos", "precision", "recall", "F1", *(["F1, random folds"] if random else [])]
    lines = [_row(titles), _row(["---", *["---:"] * (len(titles) - 1)])]
    for label, row in sorted(strict.items(), key=lambda item: -item[1]["f1"]):
        shares = [row["precision"], row["recall"], row["f1"], *([random[label]["f1"]] if random else [])]
        lines.append(_row([label, str(row["photos"]), *(f"{share:.2f}" for share in shares)]))
    return "\n".join(lines)


def make_groups_table() -> str:
    """Return docs/model.md's table of the shipped model's figures on all photos and on parts of them, in Markdown."""
    metrics = json.loads(MODEL.read_text("utf-8"))["metrics"]
    names = ("weighted_f1", "macro_f1", "accuracy")
    lines = [_row(("photos of", "folds", "photos", "weighted F1", "macro F1", "accuracy")), _row(["---"] * 6)]
    for protocol, figures in metrics.items():
        cells = []
        for name in names:
            low, high = figures["intervals"][name]
            cells.append(f"{figures[name]:.3f} ({low:.2f}–{high:.2f})")
        lines.append(_row(["everybody", protocol.partition(" ")[0], str(figures["photos"]), *cells]))
    for title, group in (("{}", "kids"), ("senders of {} photos", "sender_size")):
        for key, row in metrics["sender folds"]["by"][group].items():
            cells = [f"{row[name]:.3f}" for name in names]
            lines.append(_row([title.format(key.replace("-", "–")), "sender", str(row["photos"]), *cells]))
    return "\n".join(lines)


def make_confusions_table() -> str:
    """Return docs/model.md's table of the shipped model's most frequent mistakes, in Markdown."""
    approach = json.loads(MODEL.read_text("utf-8"))["approach"]
    facts = json.loads((HERE / f"{approach}-sender.json").read_text("utf-8"))
    labels, matrix = facts["config"]["labels"], facts["metrics"]["confusion"]
    pairs = [
        (count, label, other, count / sum(row))
        for label, row in zip(labels, matrix, strict=True)
        for other, count in zip(labels, row, strict=True)
        if label != other
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:3]))
    lines = [_row(("labelled", "taken for", "photos", "share of the class")), _row(("---", "---", "---:", "---:"))]
    lines += [_row((label, other, str(count), f"{share:.0%}")) for count, label, other, share in pairs[:CONFUSIONS]]
    return "\n".join(lines)


def make_strangers_table() -> str:
    """Return docs/model.md's table of how often the shipped model names what is no garment, in Markdown."""
    facts = json.loads(STRANGERS.read_text("utf-8"))
    lines = [_row(("what", "pictures", "named")), _row(("---", "---:", "---:"))]
    lines.append(_row(("garments of unknown senders", "", f"{facts['garments']:.0%}")))
    lines += [_row((name, str(row["pictures"]), f"{row['named']:.0%}")) for name, row in facts["strangers"].items()]
    return "\n".join(lines).replace("%", " %")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(runs: Iterable[Path]) -> None:
    """Collect finished runs' folders, and write the tables."""
    for run in runs:
        print(collect(run).relative_to(HERE.parent))
    write(README, {"folds": make_folds_table()})
    tables = {"groups": make_groups_table(), "classes": make_classes_table(), "confusions": make_confusions_table()}
    write(CARD, tables | {"strangers": make_strangers_table()})


def write(file: Path, tables: dict[str, str]) -> None:
    """Write tables between their marks, ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    text = file.read_text("utf-8")
    for mark, made in tables.items():
        start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{made}\n\n{end}{after}"
    file.write_text(text, "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs")
    main(parser.parse_args().runs)
