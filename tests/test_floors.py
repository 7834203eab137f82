"""The plan of the house, held against the imports: a room imports from lower floors or from itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import clothing_classifier

HOUSE = Path(clothing_classifier.__file__).parent
ROOT = "clothing_classifier"

FLOORS = {
    "machine": 0,
    "taxonomy": 0,
    "execution": 1,
    "images": 1,
    "resizing": 1,
    "card": 2,
    "dataset": 2,
    "classifier": 3,
    "training": 3,
    "bulk": 4,
    "evaluation": 4,
    "runs": 5,
    "service": 5,
    "cli": 6,
    "__init__": 7,
    "__main__": 7,
}

USING = {
    "machine",
    "taxonomy",
    "execution",
    "images",
    "resizing",
    "card",
    "classifier",
    "bulk",
    "service",
    "__init__",
    "__main__",
}
USING_MODULES = [
    *sorted(USING - {"service", "__init__", "__main__"}),
    "cli",
    "cli.predict",
    "cli.evaluate",
    "cli.info",
    "cli.compare",
    "dataset.labels",
    "evaluation.labelled",
    "evaluation.report",
]
NEEDED = {"numpy", "PIL", "pi_heif", "onnxruntime", "click"}
SERVING = {"fastapi", "h11", "prometheus_client", "pydantic", "python_multipart", "starlette", "uvicorn"}
MAKING = {
    "torch",
    "torchvision",
    "timm",
    "sklearn",
    "scipy",
    "pandas",
    "onnx",
    "onnxscript",
    "safetensors",
    "kagglehub",
    "huggingface_hub",
    "threadpoolctl",
}


def files() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(HOUSE).with_suffix("").parts[0]


def imports(source: str) -> Iterator[str]:
    """Yield the full name of everything that is imported, anywhere in the source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def trespasses(room: str, source: str) -> list[str]:
    """Return the imports from rooms that are not on a lower floor."""
    found = []
    for name in imports(source):
        package, *path = name.split(".")
        if package != ROOT or path == ["__version__"]:
            continue
        other = path[0] if path and path[0] in FLOORS else "__init__"
        if other != room and FLOORS[other] >= FLOORS[room]:
            found.append(name)
    return found


def test_every_room_is_on_the_plan() -> None:
    assert {room_of(file) for file in files()} <= FLOORS.keys()


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(HOUSE)))
def test_a_room_imports_from_lower_floors_only(file: Path) -> None:
    assert trespasses(room_of(file), file.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("card", "from clothing_classifier.resizing import resize", 0),
        ("card", "from clothing_classifier import __version__, resizing", 0),
        ("card", "from clothing_classifier import Classifier", 1),
        ("card", "import clothing_classifier.classifier", 1),
        ("card", "def f():\n    from clothing_classifier.dataset import Photo", 1),
        ("images", "from clothing_classifier.resizing import resize", 1),
        ("dataset", "from clothing_classifier.dataset.manifest import Photo", 0),
    ],
)
def test_trespasses_are_seen(room: str, source: str, found: int) -> None:
    assert len(trespasses(room, source)) == found


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(HOUSE)))
def test_the_using_side_needs_little(file: Path) -> None:
    room = room_of(file)
    allowed = NEEDED | sys.stdlib_module_names | {ROOT}
    if room == "dataset":
        allowed |= {"kagglehub"}
    if room == "service" or (room, file.stem) == ("cli", "serve"):
        allowed |= SERVING
    commands = ("predict", "evaluate", "info", "data", "compare", "serve")
    if room in USING | {"dataset", "evaluation"} or file.stem in commands:
        assert {name.partition(".")[0] for name in imports(file.read_text("utf-8"))} <= allowed


def modules_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after running the code."""
    code = f"import sys, json\ntry:\n    exec({code!r})\nexcept SystemExit: pass\nprint(json.dumps(list(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_package_imports_nothing_else() -> None:
    assert modules_after("import clothing_classifier") - modules_after("import __future__, typing") == {ROOT}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_wait_for_nothing(option: str) -> None:
    run = "import click, io, os, contextlib, importlib, math\n{}(prog_name='clothing', args=[{!r}])"
    plain = "click.version_option('1')(click.Group('clothing'))"
    ours = modules_after(run.format("importlib.import_module('clothing_classifier.cli').main", option))
    assert ours - modules_after(run.format(plain, option)) == {ROOT, f"{ROOT}.cli"}


def test_the_using_side_works_without_the_making_side(tiny_model: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(photo)
    code = f"""
import importlib, sys
for name in {MAKING!r}:
    sys.modules[name] = None  # importing it fails
for name in {USING_MODULES!r}:
    importlib.import_module("{ROOT}." + name)
from clothing_classifier.cli import main
main(["info", {str(tiny_model)!r}], standalone_mode=False)
main(["predict", "--model", {str(tiny_model)!r}, {str(photo)!r}], standalone_mode=False)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("red")
