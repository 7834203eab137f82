"""``clothing info``: what a model is, how it was made, and how far to trust it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from clothing_classifier.cli import measure_width, model_option, pad, printable
from clothing_classifier.cli.table import describe_entry, wrap

if TYPE_CHECKING:
    from clothing_classifier.card import ModelCard, ModelFile

_DEPTH = 3


@click.command()
@click.argument("file", metavar="[MODEL]", required=False, type=click.Path(readable=False))
@model_option
@click.option("--format", "layout", default="text", show_default=True, type=click.Choice(["text", "json"]))
def command(file: str | None, model: str | None, layout: str) -> None:
    """Show the card of MODEL; without it, of the model that ships.

    json has the card's own keys, and the file's path, size in bytes and SHA-256 under "file"; under "execution", which
    of onnxruntime's execution providers computes the model here (`--provider auto`), which others there are, and why
    those that were tried before it are not used.

    Exit code: 0, or 2 where MODEL is not a whole model file of this project.
    """
    import hashlib

    from clothing_classifier.card import ModelError, read_model
    from clothing_classifier.classifier import Classifier
    from clothing_classifier.execution import available

    if file is not None and model is not None:
        raise click.UsageError("name the model once, with --model or without")
    found = read_model(model if file is None else file)
    digest = hashlib.sha256(found.content).hexdigest()
    try:
        classifier = Classifier(found)
        chosen, refused, error = classifier.provider, dict(classifier.refused), None
    except ModelError as failed:
        chosen, refused, error = None, {}, str(failed)
    execution = {"provider": chosen, "available": list(available()), "refused": refused, "error": error}
    if layout == "json":
        facts = {"path": str(found.path), "bytes": len(found.content), "sha256": digest}
        click.echo(json.dumps({"file": facts, "execution": execution, **json.loads(found.card.to_json())}, indent=2))
        return
    for line in _describe(found, digest, execution):
        click.echo(line)


def _describe(model: ModelFile, digest: str, execution: Mapping[str, Any]) -> Iterator[str]:
    card = model.card
    resizing = card.resizing
    proportions = "proportions kept, the rest filled" if resizing.mode == "pad" else "proportions given up"
    made = f"{card.created}, by version {card.version}" + (f", commit {card.commit}" if card.commit else "")
    yield printable(card.name)
    yield ""
    yield from describe_entry("File", f"{model.path}, {len(model.content) / 1e6:.1f} MB")
    yield from describe_entry("SHA-256", digest)
    yield from describe_entry("Made", made)
    yield from describe_entry("Licence", card.licence)
    yield from describe_entry("Input", f"{resizing.height} × {resizing.width} pixels, {proportions}")
    yield from describe_entry("Labels", f"{len(card.labels)}: {', '.join(card.labels)}")
    runs = f"{execution['provider'] or 'nothing here'}; there are: {', '.join(execution['available'])}"
    for name, reason in execution["refused"].items():
        runs += f"; not on {name}: {reason}"
    yield from describe_entry("Runs on", runs if execution["error"] is None else f"{runs}. {execution['error']}")
    yield from describe_entry("Not sure", f"below a probability of {card.threshold:g}; {_promise(card.promise)}")
    for title, values in (("Weights", card.weights), ("Training", _training(card)), ("Data", card.data)):
        yield ""
        yield from _section(title, values)
    yield ""
    yield from _figures(card)


def _training(card: ModelCard) -> Mapping[str, Any]:
    """Return what the card says of the training; a backbone whose weights came from a file is an architecture.

    What timm's name of it says behind the dot is what other weights learned from.
    """
    backbone = card.training.get("backbone")
    from_file = str(card.weights.get("source")).startswith("file:")
    if not from_file or not isinstance(backbone, str) or "." not in backbone:
        return card.training
    renamed = {"architecture" if key == "backbone" else key: value for key, value in card.training.items()}
    return renamed | {"architecture": backbone.partition(".")[0]}


def _promise(promise: Mapping[str, Any]) -> str:
    text = f"chosen so that {_percent(promise.get('accuracy'))} of the answers are right"
    text += f", measured on {promise.get('measured_on', 'nothing')}"
    if promise.get("kept") is False:
        text += ", which did not allow it"
    if "share" in promise:
        text += f": {_percent(promise['share'])} of them got an answer"
    if "measured_accuracy" in promise:
        text += f", and {_percent(promise['measured_accuracy'])} of these were right"
    ends = promise.get("interval")
    if isinstance(ends, list) and len(ends) == 2:
        text += f" (95% interval: {_percent(ends[0])} to {_percent(ends[1])})"
    return text


def _figures(card: ModelCard) -> Iterator[str]:
    if not card.metrics:
        yield from describe_entry("Figures", "none: the model has not been measured")
    for part, figures in card.metrics.items():
        if not isinstance(figures, Mapping):
            yield from describe_entry(f"On {part}", _short(figures))
            continue
        plain = {key: value for key, value in figures.items() if key not in ("per_class", "confusion")}
        yield from _section(f"On {part}", plain)
        classes = figures.get("per_class")
        if isinstance(classes, Mapping) and all(isinstance(row, Mapping) for row in classes.values()):
            width = max(map(measure_width, (*classes, "class")))
            yield f"  {'class':<{width}}  precision  recall      f1  photos"
            for label, row in classes.items():
                cells = (_short(row.get(key)) for key in ("precision", "recall", "f1", "photos"))
                yield "  {}  {:>9}  {:>6}  {:>6}  {:>6}".format(pad(printable(label), width), *cells)
        yield ""


def _section(title: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield title
    for key, value in values.items():
        name = "  " + key.replace("_", " ")
        if key == "classes" and isinstance(value, Mapping) and value:  # its keys are a person's own words
            paragraphs = [", ".join(f"{label} {_short(count)}" for label, count in value.items())]
        else:
            paragraphs = _paragraphs(value)
        if len(paragraphs) == 1:
            yield from describe_entry(name, paragraphs[0], max(map(len, values)) + 4)
            continue
        yield printable(name)
        for text in paragraphs:
            yield wrap("    ", text, 6)


def _paragraphs(value: object, depth: int = 0) -> list[str]:
    """Return a value, from a depth of a card, as text; where it is several things, one for each."""
    if depth < _DEPTH and isinstance(value, list) and _are_mappings(value):
        return [_short(inner, depth) for inner in value]
    if depth < _DEPTH and isinstance(value, Mapping):
        deep = [isinstance(inner, Mapping | list) and _are_mappings(inner) for inner in value.values()]
        if any(deep) or _are_mappings(value):
            return [
                f"{key.replace('_', ' ')}: {text}"
                for key, inner in value.items()
                for text in _paragraphs(inner, depth + 1)
            ]
    return [_short(value, depth)]


def _are_mappings(values: Mapping[str, Any] | list[Any]) -> bool:
    inner = values.values() if isinstance(values, Mapping) else values
    return len(values) > 0 and all(isinstance(value, Mapping) for value in inner)


def _short(value: object, depth: int = 0) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping | list) and depth == _DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_short(inner, depth + 1)}" for key, inner in value.items())
    if isinstance(value, list):
        interval = len(value) == 2 and all(isinstance(end, float) for end in value)
        return (" to " if interval else ", ").join(_short(inner, depth + 1) for inner in value)
    return str(value)


def _percent(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else "an unknown share"
