from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import click
import pytest
from click.testing import CliRunner

from clothing_classifier.cli import _COMMANDS, main


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_help_of_a_command_reads_well(name: str) -> None:
    if name in ("train", "crossval"):
        pytest.importorskip("torch", reason="needs the extra train")
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
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
