from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from clothing_classifier.cli import main

if TYPE_CHECKING:
    import crossval_runs as runs
else:
    spec = importlib.util.spec_from_file_location("crossval_runs", Path(__file__).with_name("crossval_runs.py"))
    runs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runs)


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> runs.Data:
    return runs.draw(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(data: runs.Data, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        runs.write_run(folder / "one", data, runs.guess(data, 0.9, 1), "custom-cnn"),
        runs.write_run(folder / "two", data, runs.guess(data, 0.6, 2), "resnet50", "sender"),
    ]


def test_the_table_is_printed_and_the_report_written(made: list[Path], data: runs.Data, tmp_path: Path) -> None:
    out, markdown = tmp_path / "r.html", tmp_path / "t.md"
    result = compare(*made, "--out", out, "--markdown", markdown, "--data", data.root, "--title", "Ours & theirs")
    assert result.exit_code == 0
    assert result.stdout == markdown.read_text("utf-8")
    assert len(result.stdout.splitlines()) == 2 + 2
    page = out.read_text("utf-8")
    assert "<h1>Ours &amp; theirs</h1>" in page
    assert "<img" in page
    assert result.stderr == f"The report is {out} ({out.stat().st_size / 1e6:.1f} MB).\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "t.md"]


def test_without_data_there_are_no_photos_and_it_says_so(made: list[Path], tmp_path: Path) -> None:
    result = compare(*made, "--out", tmp_path / "r.html")
    assert result.exit_code == 0
    assert "--data DIR shows them" in result.stderr
    assert "<img" not in (tmp_path / "r.html").read_text("utf-8")


def test_photos_are_left_out_on_demand(made: list[Path], data: runs.Data, tmp_path: Path) -> None:
    result = compare(*made, "--data", data.root, "--no-photos", "--out", tmp_path / "r.html")
    assert result.exit_code == 0
    assert "shows them" not in result.stderr
    assert "<img" not in (tmp_path / "r.html").read_text("utf-8")


def test_a_run_that_cannot_be_compared_is_named_and_nothing_is_written(made: list[Path], tmp_path: Path) -> None:
    result = compare(made[0], tmp_path / "none", "--out", tmp_path / "r.html")
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"Error: {tmp_path / 'none'}: is not a run of `clothing crossval`, there is no config.json in it\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [[], ["--data", "nowhere"], ["--out", "."]])
def test_a_wrong_command_is_refused(wrong: list[str], made: list[Path]) -> None:
    assert compare(*wrong, *(made if wrong else [])).exit_code == 2


def test_the_same_run_twice_is_refused(made: list[Path], tmp_path: Path) -> None:
    result = compare(made[0], made[0].parent / "." / "one", "--out", tmp_path / "r.html")
    assert result.exit_code == 2
    assert "named twice" in result.stderr


def test_a_report_that_cannot_be_written_is_an_error_and_leaves_nothing(made: list[Path], tmp_path: Path) -> None:
    result = compare(*made, "--out", tmp_path / "none" / "r.html")
    assert result.exit_code == 2
    assert "r.html" in result.stderr


def test_comparing_needs_no_more_than_using_does(made: list[Path], tmp_path: Path) -> None:
    code = f"""
import sys
for name in ("torch", "timm", "sklearn", "scipy", "pandas", "matplotlib", "safetensors", "kagglehub", "onnx"):
    sys.modules[name] = None  # importing it fails
from clothing_classifier.cli import main
main(["compare", {str(made[0])!r}, "--out", {str(tmp_path / "r.html")!r}])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
