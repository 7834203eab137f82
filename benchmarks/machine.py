"""What is measured on: processor, cores, versions; and processes that measure alone."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clothing_classifier.machine import available_cores
from clothing_classifier.runs.folder import find_commit


def describe(packages: Sequence[str]) -> dict[str, Any]:
    """Return the processor, how many of its cores this process may use, the versions of packages, and the commit."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else model
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": model,
        "cores": available_cores(),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": versions,
        "commit": find_commit(),
    }


def child(script: Path, name: str, given: dict[str, Any], cores: int | None = None) -> dict[str, Any]:
    """Run one of a script's measurements in a process of its own.

    Args:
        script: a benchmark, whose hidden option ``--child`` reads arguments from standard input and prints JSON last.
        name: of the measurement.
        given: its arguments.
        cores: how many cores it may use; all by default. Linux only.

    Returns:
        What it printed.
    """
    chosen = sorted(os.sched_getaffinity(0))[:cores] if cores else []
    done = subprocess.run(
        [sys.executable, str(script), ".", "--child", name],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=(lambda: os.sched_setaffinity(0, chosen)) if cores else None,
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
