from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from clothing_classifier.cli import _COMMANDS, main


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_help_of_a_command_reads_well(name: str) -> None:
    if name in ("train", "crossval"):
        pytest.importorskip("torch", reason="needs the extra train")
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert result.stdout.splitlines()[1] == "", "the usage is one line"
    assert "\\" not in result.stdout
    assert all(line.isprintable() for line in result.stdout.splitlines())
    assert isinstance(import_module(f"clothing_classifier.cli.{name}").command, click.Command)


@pytest.mark.parametrize("encoding", ["ascii", "cp1251", "cp932"])
def test_what_an_encoding_lacks_ends_no_command(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clothing_classifier", "info"],
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Input" in done.stdout


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "red.png"
    Image.new("RGB", (16, 24), (220, 30, 20)).save(path)
    return path


def run(*words: object, streams: str = "", packages: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the program by a shell, which closes streams, where packages of another folder come first."""
    path = os.pathsep.join(str(folder) for folder in (packages, os.environ.get("PYTHONPATH")) if folder)
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-W", "error", "-m", "clothing_classifier"]
        + [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.parametrize("name", ["train", "crossval"])
def test_the_help_says_that_a_table_will_do(name: str) -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    told = " ".join(CliRunner().invoke(main, [name, "--help"]).stdout.split())
    assert "photos per class, or a table of labels, as `clothing evaluate` takes it." in told


posix = pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")


@posix
@pytest.mark.parametrize("streams", ["2>&-", "<&- 2>&-"])
def test_rows_are_written_without_a_standard_error(streams: str, tiny_model: Path, photo: Path) -> None:
    done = run("predict", "--model", tiny_model, "--format", "csv", photo, streams=streams)
    assert done.returncode == 0
    assert done.stdout.startswith(b"path,label,probability,sure,error\n%s,red," % os.fsencode(photo))


@posix
def test_a_file_of_rows_needs_no_standard_stream(tiny_model: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    words = ("predict", "--model", tiny_model, "--out", out)
    done = run(*words, photo, streams="<&- >&- 2>&-")
    assert (done.returncode, out.read_bytes().count(b"\n")) == (0, 2), "and nothing else is written to it"
    empty = run(*words, "-", streams="<&-")
    assert (empty.returncode, empty.stderr) == (0, b"0 photos: 0 sure, 0 not sure, 0 could not be read\n")


@posix
@pytest.mark.parametrize("command", ["predict", "info", "--help", "--version"])
def test_what_a_closed_output_loses_is_an_error(command: str, tiny_model: Path, photo: Path) -> None:
    words = {"predict": ("--model", tiny_model, photo), "info": (tiny_model,)}.get(command, ())
    done = run(command, *words, streams=">&-")
    assert done.returncode == 2
    assert done.stderr == b"Error: standard output is closed; what is to be written there would be lost\n"


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_what_a_full_output_loses_is_an_error_in_words(tiny_model: Path) -> None:
    done = run("info", tiny_model, streams=">/dev/full")
    assert (done.returncode, done.stderr) == (2, b"Error: no space left on device\n")


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_standard_error_is_no_photo_that_cannot_be_read(tiny_model: Path, photo: Path) -> None:
    done = run("predict", "--model", tiny_model, photo, streams="2>/dev/full")
    assert done.returncode == 2
    assert done.stdout.splitlines()[1].startswith(b"red ")


def _package(folder: Path, name: str, content: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(content, "utf-8")
    return folder


@posix
def test_a_fault_of_the_program_is_told_whole_and_is_code_2(photo: Path, tmp_path: Path) -> None:
    done = run("predict", photo, packages=_package(tmp_path, "onnxruntime", "1 / 0"))
    assert done.returncode == 2
    assert done.stderr.startswith(b"Traceback")
    assert done.stderr.endswith(b"ZeroDivisionError: division by zero\n")


@posix
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "raise ImportError('DLL load failed while importing onnxruntime_pybind11_state: The specified\\nmodule "
            "could not be found.', name='onnxruntime.capi.onnxruntime_pybind11_state')",
            "onnxruntime cannot be imported (DLL load failed while importing onnxruntime_pybind11_state: The specified "
            "module could not be found.); install Microsoft's Visual C++ Redistributable",
        ),
        ("import onnxruntime.other", "onnxruntime cannot be imported (No module named 'onnxruntime.other'); install"),
    ],
    ids=["Windows without the C++ runtime", "a broken installation"],
)
def test_a_package_that_cannot_be_imported_is_one_line(content: str, told: str, photo: Path, tmp_path: Path) -> None:
    done = run("predict", photo, packages=_package(tmp_path, "onnxruntime", content))
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"Error: {told}")
    assert b"pip install --force-reinstall" in done.stderr
    assert done.stderr.count(b"\n") == 1


@posix
@pytest.mark.parametrize(
    ("package", "content"),
    [
        ("click", "raise KeyboardInterrupt"),
        ("onnxruntime", "raise ImportError('initialization failed') from KeyboardInterrupt()"),  # as it does
    ],
)
def test_a_ctrl_c_while_packages_are_imported_is_no_fault(
    package: str, content: str, photo: Path, tmp_path: Path
) -> None:
    done = run("predict", photo, packages=_package(tmp_path, package, content))
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_ctrl_c_while_the_options_are_read_has_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(click.Group, "parse_args", interrupt)
    assert CliRunner().invoke(main, ["info"]).exit_code == 130
