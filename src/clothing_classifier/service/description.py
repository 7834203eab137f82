"""The API's description: OpenAPI, and a page of it that loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from clothing_classifier.service.answers import Description, Predictions, ProblemDetails, State
from clothing_classifier.service.problems import KINDS, MEDIA_TYPE
from clothing_classifier.service.settings import Settings

TITLE: Final = "Clothing classifier"

_INTRODUCTION: Final = (
    "Photos of garments in, categories out. An answer whose probability is below the model's threshold is `not sure`."
)

_FAILED: Final = {
    "name": "b.jpg",
    "error": {"kind": "unreadable", "reason": "is cut short: its end is missing; copy it again"},
}

_DETAILS: Final = {
    "not-a-picture": "is a PDF document, not a picture",
    "unreadable": "is cut short: its end is missing; copy it again",
    "too-large": "is over the limit of 20,971,520 bytes; make it smaller",
    "too-many-pixels": "is 12,000 × 9,000 = 108,000,000 pixels, over the limit of 50,000,000; make it smaller",
    "invalid": "top: Input should be greater than or equal to 1",
    "not-reached": "was not reached in time: the service has too much to do; send it again",
    "overloaded": "Too much is under way; ask again in 2 s.",
}


def _errors(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Return the description of the errors of an address, its own and those of all, by status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in (*kinds, "misdirected", "internal"):
        status, title = KINDS[kind]
        response = responses.setdefault(status, {"description": "", "content": {MEDIA_TYPE: {"examples": {}}}})
        response["description"] += f"; {title}" if response["description"] else title
        response["content"][MEDIA_TYPE]["schema"] = {"$ref": "#/components/schemas/ProblemDetails"}
        response["content"][MEDIA_TYPE]["examples"][kind] = {
            "value": {
                "type": f"/docs#{kind}",
                "title": title,
                "status": status,
                "detail": _DETAILS.get(kind, f"{title}."),
            }
        }
        if status == 503:
            response["headers"] = {
                "Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer"}}
            }
    return responses


def _fine(model: type[Any], text: str, **content: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "description": text, "content": {"application/json": content}}}


def predictions_of(model: Mapping[str, Any], labels: Sequence[str]) -> dict[int | str, dict[str, Any]]:
    """Return the description of the answers to photos.

    Args:
        model: what the answers say of the model; its ``threshold`` decides what the examples are sure of.
        labels: the model's classes.
    """
    threshold = float(model["threshold"])
    sure = _classified("a.jpg", labels, round((1 + threshold) / 2, 6), sure=True)
    unsure = _classified("photo", labels, round(threshold / 2, 6), sure=False)
    examples = {
        "one photo": {"value": {"model": model, "results": [unsure]}},
        "several, one of them damaged": {"value": {"model": model, "results": [sure, _FAILED]}},
    }
    return _fine(Predictions, "A result for each photo, in their order.", examples=examples) | _errors(
        "malformed",
        "unauthorized",
        "cross-site",
        "too-slow",
        "too-large",
        "too-many-bytes",
        "too-many-files",
        "not-a-picture",
        "unsupported-encoding",
        "unreadable",
        "too-many-pixels",
        "timeout",
        "not-reached",
        "no-photo",
        "invalid",
        "overloaded",
        "stopping",
    )


def _classified(name: str, labels: Sequence[str], probability: float, *, sure: bool) -> dict[str, Any]:
    second = round(min(probability, 1 - probability) / 2, 6)  # or it would be the first
    return {
        "name": name,
        "answer": labels[0] if sure else "not sure",
        "sure": sure,
        "label": labels[0],
        "probability": probability,
        "labels": [
            {"label": label, "probability": share} for label, share in zip(labels, (probability, second), strict=False)
        ],
    }


MODEL: Final = _fine(Description, "The model.") | _errors("unauthorized")
HEALTH: Final = _fine(State, "The process answers.", example={"status": "alive"}) | _errors("failing")
READINESS: Final = _fine(State, "Requests are taken.", example={"status": "ready"}) | _errors("failing", "stopping")
METRICS: Final = _errors("unauthorized") | {
    200: {
        "description": "The figures, in Prometheus's text format.",
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": 'clothing_photos_total{sure="true"} 12.0\n'}
        },
    }
}


def body_of(settings: Settings) -> dict[str, Any]:
    """Return the description of what predictions are asked for with."""
    photo = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "required": ["photos"],
        "properties": {
            "photos": {
                "type": "array",
                "minItems": 1,
                "maxItems": settings.files,
                "items": {"type": "string", "format": "binary"},
                "description": "Files, of any names. Any other file field is taken too.",
            }
        },
    }
    return {
        "requestBody": {
            "required": True,
            "description": "One photo as the whole body, whatever its Content-Type; or a form with one or more. What a "
            "file is, is told by its content: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC. Results come in the order "
            "of the form's parts, with their names from `filename`, not from `filename*` (RFC 7578).",
            "content": {
                "image/jpeg": photo,
                "image/png": photo,
                "multipart/form-data": {"schema": form},
            },
        }
    }


def complete(document: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return FastAPI's description with what it does not know."""
    schemas = document["components"]["schemas"]
    schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own errors, which are not used here
        schemas.pop(name, None)
    if settings.key is not None:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            needs_key = path.startswith("/v1/") or path == "/metrics"
            if needs_key and settings.key is not None:
                operation["security"] = [{"bearer": []}, {"header": []}]
            else:
                operation["responses"].pop("401", None)
    return document


_STYLE: Final = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 56rem; padding: 1rem; }
h2 { border-top: 1px solid; margin-top: 2.5rem; padding-top: 1rem; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; }
pre { border: 1px solid; border-radius: .25rem; overflow-wrap: anywhere; padding: .75rem; white-space: pre-wrap; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid; padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top; }
.method { border: 1px solid; border-radius: .25rem; padding: 0 .4rem; }
"""

_SCRIPT: Final = """
for (const one of document.querySelectorAll(".address")) one.textContent = new URL(".", location).href;
"""
"""Puts the address that the browser knows into the examples: a proxy may hide https, or a prefix, from the service."""


def _source(text: str) -> str:
    """Return how a Content-Security-Policy names a style or a script that stands in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY: Final = (
    f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: its own style and script, and nothing else."""


def write_page(document: Mapping[str, Any], address: str) -> str:
    """Return the description as an HTML page that loads nothing and can be read without scripts.

    Args:
        document: the description.
        address: where the service is asked, with a slash at the end, as far as the service knows.
    """
    predictions = f'<span class="address">{escape(address)}</span>v1/predictions'
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{TITLE}: API</title><style>{_STYLE}</style>",
        f"<main><h1>{TITLE}: API</h1><p>{_INTRODUCTION.replace('`not sure`', '<code>not sure</code>')}</p>",
        '<p>For programs: <a href="openapi.json">openapi.json</a>. For people: <a href="./">the page</a>.</p>',
        f"<pre>curl --data-binary @photo.jpg '{predictions}?top=3'\n"
        f"curl -F photos=@a.jpg -F photos=@b.jpg '{predictions}?evidence=true'</pre>",
    ]
    if "securitySchemes" in document["components"]:
        parts.append(
            "<p>This service asks for a key: add <code>-H 'Authorization: Bearer KEY'</code> or "
            "<code>-H 'X-API-Key: KEY'</code>.</p>"
        )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(method, path, operation)
    parts.append(
        '<h2 id="errors">Errors</h2><p>Each is <code>application/problem+json</code>; its <code>type</code> is '
        "<code>/docs#</code> and one of these kinds, also where a proxy gives this page another address.</p>"
    )
    parts.append("<table><tr><th>Kind<th>Status<th>Meaning")
    parts += [
        f'<tr id="{kind}"><td><code>{kind}</code><td>{status}<td>{title}.' for kind, (status, title) in KINDS.items()
    ]
    parts.append("</table><h2>Shapes</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f'<h3 id="shape-{escape(name)}">{escape(name)}</h3><p>{_text(schema.get("description", ""))}</p>')
        parts += _fields(schema)
    return "\n".join([*parts, f"</main><script>{_SCRIPT}</script></html>", ""])


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterable[str]:
    yield f'<h2><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>'
    yield f"<p>{_text(operation.get('description', operation['summary']))}</p>"
    if parameters := operation.get("parameters"):
        yield "<h3>Parameters</h3><table><tr><th>Name<th>Type<th>Default<th>Meaning"
        for parameter in parameters:
            schema = parameter["schema"]
            yield f"<tr><td><code>{escape(parameter['name'])}</code><td>{_type(schema)}"
            default = escape(json.dumps(schema.get("default")))
            yield f"<td><code>{default}</code><td>{_text(parameter.get('description', ''))}"
        yield "</table>"
    if body := operation.get("requestBody"):
        yield f"<h3>Body</h3><p>{_text(body['description'])}</p><table><tr><th>Content-Type<th>Content"
        for media_type, content in body["content"].items():
            yield f"<tr><td><code>{escape(media_type)}</code><td>{_type(content['schema'])}"
        yield "</table>"
    yield "<h3>Answers</h3><table><tr><th>Status<th>Meaning<th>Shape"
    for status, response in sorted(operation["responses"].items()):
        schemas = (content.get("schema", {}) for content in response.get("content", {}).values())
        yield f"<tr><td>{status}<td>{_text(response['description'].rstrip('.'))}.<td>{', '.join(map(_type, schemas))}"
    yield "</table>"
    for content in operation["responses"].get("200", {}).get("content", {}).values():
        examples = {"": {"value": content["example"]}} if "example" in content else content.get("examples", {})
        for name, example in examples.items():
            value = example["value"]
            shown = value if isinstance(value, str) else json.dumps(value, indent=2)
            yield f"<p>For example{escape(name and f', {name}')}:</p><pre>{escape(shown)}</pre>"


def _fields(schema: Mapping[str, Any]) -> Iterable[str]:
    yield "<table><tr><th>Name<th>Type<th>Meaning"
    for name, field in schema.get("properties", {}).items():
        missing = "" if name in schema.get("required", ()) else " May be missing."
        yield f"<tr><td><code>{escape(name)}</code><td>{_type(field)}<td>{_text(field.get('description', ''))}{missing}"
    yield "</table>"


def _type(schema: Mapping[str, Any]) -> str:
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#shape-{name}">{name}</a>'
    if options := schema.get("anyOf"):
        return " or ".join(_type(option) for option in options if option.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("format") == "binary":
        return "bytes"
    text = escape(str(schema.get("type", "any")))
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        text += f", {least:g} to {most:g}"
    if schema.get("type") == "object" and "properties" in schema:
        text = "form: " + ", ".join(f"<code>{escape(k)}</code>, {_type(v)}" for k, v in schema["properties"].items())
    return text


def _text(text: str) -> str:
    """Return text as HTML; what stands in backticks is code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))
