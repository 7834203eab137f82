"""The figures in `results/speed/` → the tables of docs/speed.md and of the README, and the plots beside them.

    python benchmarks/tables.py

Computes nothing but ratios of figures from one run. A test holds tables and figures together.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPEED = ROOT / "results" / "speed"
PAGE = ROOT / "docs" / "speed.md"
README = ROOT / "README.md"
OURS, PIPELINE = "clothing", "transformers"
TOOLS = {
    OURS: "ours",
    PIPELINE: "transformers' pipeline",
    "transformers, batches": "the same, batches and workers",
    "timm": "timm",
    "torchvision": "torchvision",
    "fastai": "fastai",
}
SIZES = {"large": "12 megapixels", "small": "400 pixels"}
ARCHITECTURES = {
    "efficientnet-b0": "EfficientNet-B0",
    "convnext-tiny": "ConvNeXt-Tiny",
    "default": "each tool's default",
}
NETWORKS = ARCHITECTURES | {"mobilenetv2": "MobileNetV2"}


def rates_table(result: dict[str, Any]) -> str:
    """Return photos a second of each tool, and how many times those of transformers' pipeline ours are."""
    rates = {tuple(row[key] for key in KEYS): row["photos_per_second"] for row in result["rates"]}
    tools = [tool for tool in TOOLS if any(key[-1] == tool for key in rates)]
    titles = ["architecture", "photos", "cores", *(TOOLS[tool] for tool in tools)]
    cases = dict.fromkeys(key[:-1] for key in rates)
    if PIPELINE in tools:
        titles.append("ours ÷ pipeline")
    rows = []
    for case in sorted(
        cases, key=lambda case: (list(ARCHITECTURES).index(case[0]), list(SIZES).index(case[1]), case[2])
    ):
        found = [rates.get((*case, tool)) for tool in tools]
        cells = [ARCHITECTURES[case[0]], SIZES[case[1]], str(case[2])]
        cells += [cell("{:.1f}", rate) for rate in found]
        if PIPELINE in tools:
            cells.append(cell("**{:.1f}×**", rates.get((*case, OURS)), rates.get((*case, PIPELINE))))
        rows.append(cells)
    return table(titles, rows, words=2)


def limits_table(result: dict[str, Any]) -> str:
    """Return decoding alone, computing alone, and how near ours comes to what the two allow."""
    rates = {tuple(row[key] for key in KEYS): row["photos_per_second"] for row in result["rates"]}
    rows = []
    for row in result["limits"]:
        ours = rates.get((row["architecture"], row["size"], row["cores"], OURS))
        cells = [ARCHITECTURES[row["architecture"]], SIZES[row["size"]], str(row["cores"])]
        cells += [cell("{:.1f}", row[name]) for name in ("decoding", "computing", "together")]
        cells += [cell("{:.1f}", ours), *(cell("{:.0%}", ours, row[name]) for name in ("together", "slower"))]
        rows.append(cells)
    titles = ("architecture", "photos", "cores", "decoding alone", "computing alone", "both, on these cores", "ours")
    return table((*titles, "of both", "of the slower alone"), rows, words=2)


def first_table(result: dict[str, Any]) -> str:
    """Return the seconds from the start of a process to its first prediction."""
    rows = [(TOOLS[tool], cell("{:.2f}", seconds)) for tool, seconds in result["first"].items()]
    return table(("tool", "seconds"), rows)


def growth_table(result: dict[str, Any]) -> str:
    """Return what a folder of so many photos costs, from the start of the process to its end."""
    rows = [
        [
            f"{row['photos']:,}",
            *(cell("{:.1f}", row[name]) for name in ("seconds", "photos_per_second")),
            cell("{:.0f}", row["peak_mb"]),
        ]
        for row in result["growth"]
    ]
    return table(("photos", "seconds", "photos/s", "memory at its peak, MB"), rows, words=0)


def training_table(result: dict[str, Any]) -> str:
    """Return photos a second of ways of training, and how many times those of timm's script they are."""
    rates = {(row["approach"], row["way"]): row["photos_per_second"] for row in result["rates"]}
    first = result["rates"][0]["way"]
    rows = [
        (NETWORKS.get(approach, approach), way, cell("{:.1f}", rate), cell("{:.2f}×", rate, rates[approach, first]))
        for (approach, way), rate in rates.items()
    ]
    return table(("network", "way of training", "photos/s", "÷ timm's script as it is"), rows, words=2)


def decoding_table(result: dict[str, Any]) -> str:
    """Return the figures of the two ways of decoding."""
    rows = [
        (name, *(f"{way[score]:.4f}" for score in SCORES), f"{way['ms_of_one_core']:.0f}")
        for name, way in result["ways"].items()
    ]
    return table(("decoded", "weighted F1", "macro F1", "accuracy", "ms of one core"), rows)


def quantised_table(result: dict[str, Any]) -> str:
    """Return time and answers of the precisions."""
    rows = [
        (name, f"{way['ms_a_photo']:.1f}", f"{way['same_class']:.0%}", f"{way['largest_difference']:.2f}")
        for name, way in result["ways"].items()
    ]
    return table(("computed in", "ms a photo", "same class as float32", "largest difference of a probability"), rows)


def readme_table(result: dict[str, Any]) -> str:
    """Return the README's few rows: all cores, ours and the pipeline."""
    rates = {tuple(row[key] for key in KEYS): row["photos_per_second"] for row in result["rates"]}
    cores = max(key[2] for key in rates)
    rows = []
    for size in SIZES:
        for architecture in ARCHITECTURES:
            ours, pipeline = (rates.get((architecture, size, cores, tool)) for tool in (OURS, PIPELINE))
            cells = [ARCHITECTURES[architecture], SIZES[size], cell("{:.1f}", ours), cell("{:.1f}", pipeline)]
            rows.append([*cells, cell("**{:.1f}×**", ours, pipeline)])
    return table(("architecture", "photos of", "ours", TOOLS[PIPELINE], "ours ÷ pipeline"), rows, words=2)


def cell(form: str, value: float | None, other: float | None = 1) -> str:
    """Return a figure, or how many times another it is; empty where one of them is missing, as what made it failed."""
    return "" if value is None or other is None else form.format(value / other)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Return a table in Markdown, its first columns of words to the left, those of numbers to the right."""
    marks = ["---"] * words + ["---:"] * (len(titles) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, marks, *rows)).replace("%", " %")


def draw(result: dict[str, Any], folder: Path) -> None:
    """Draw photos a second by tool, and what growing folders cost."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "speed", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    from matplotlib import pyplot

    rates = {tuple(row[key] for key in KEYS): row["photos_per_second"] for row in result["rates"]}
    cores = max(key[2] for key in rates)
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.1), layout="constrained")
    for axis, (architecture, title) in zip(axes, ARCHITECTURES.items(), strict=True):
        tools = [tool for tool in TOOLS if rates.get((architecture, "large", cores, tool)) is not None][::-1]
        values = [rates[architecture, "large", cores, tool] for tool in tools]
        colours = ["#0b6e4f" if tool == OURS else "#9aa5b1" for tool in tools]
        axis.bar_label(axis.barh([TOOLS[tool] for tool in tools], values, color=colours), fmt="%.1f", padding=2)
        axis.set_title(title)
        axis.set_xlim(0, 1.2 * max(values, default=1))
        axis.set_xlabel("photos a second")
    figure.suptitle(f"JPEGs of 12 megapixels, {cores} cores")
    save(figure, folder / "speed.svg")
    figure, axes = pyplot.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
    grown = [row for row in result["growth"] if row["seconds"] is not None]
    counts = [row["photos"] for row in grown]
    for axis, name, title in zip(axes, ("seconds", "peak_mb"), ("seconds", "memory at its peak, MB"), strict=True):
        axis.plot(counts, [row[name] for row in grown], "o-", color="#0b6e4f")
        axis.set_xscale("log")
        axis.set_xlabel("photos")
        axis.set_title(title)
    axes[0].set_yscale("log")
    axes[1].set_ylim(0, 1.2 * max((row["peak_mb"] for row in grown), default=1))
    save(figure, folder / "growth.svg")


def save(figure: Any, file: Path) -> None:
    """Write a drawing, the same bytes for the same figures."""
    figure.savefig(file, metadata={"Date": None}, facecolor="white")
    lines = file.read_text("utf-8").splitlines()
    file.write_text("\n".join(line.rstrip() for line in lines) + "\n", "utf-8")


def fill(text: str, tables: dict[str, str]) -> str:
    """Return a text with tables between their marks, ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    for mark, made in tables.items():
        before, start, rest = text.partition(f"<!-- {mark} -->")
        _, end, after = rest.partition(f"<!-- /{mark} -->")
        if not end:
            raise SystemExit(f"the marks of {mark} are missing")
        text = f"{before}{start}\n\n{made}\n\n{end}{after}"
    return text


def tables() -> dict[Path, dict[str, str]]:
    """Return the tables of each page, by their marks."""
    found = {name: json.loads((SPEED / f"{name}.json").read_text("utf-8")) for name in TABLES}
    page = {mark: make(found[name]) for name, makers in TABLES.items() for mark, make in makers.items()}
    return {PAGE: page, README: {"speed": readme_table(found["predict"])}}


SCORES = ("weighted_f1", "macro_f1", "accuracy")
KEYS = ("architecture", "size", "cores", "tool")
TABLES = {
    "predict": {"rates": rates_table, "limits": limits_table, "first": first_table, "growth": growth_table},
    "training": {"training": training_table},
    "decoding": {"decoding": decoding_table},
    "quantised": {"quantised": quantised_table},
}


def main() -> None:
    """Write the tables, and draw."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for file, made in tables().items():
        file.write_text(fill(file.read_text("utf-8"), made), "utf-8")
    draw(json.loads((SPEED / "predict.json").read_text("utf-8")), ROOT / "docs")
    print("written: README.md, docs/speed.md, docs/speed.svg, docs/growth.svg", file=sys.stderr)


if __name__ == "__main__":
    main()
