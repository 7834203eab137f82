"""What is measured on: processor, cores, versions; and processes that measure alone."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clothing_classifier.machine import available_cores
from clothing_classifier.runs.folder import find_commit


def describe(packages: Sequence[str]) -> dict[str, Any]:
    """Return the processor, how many of its cores this process may use, the versions of packages, and the commit."""
    model, instructions = platform.processor(), []
    if Path("/proc/cpuinfo").exists():
        told = Path("/proc/cpuinfo").read_text()
        found = re.search(r"model name\s*: (.*)", told)
        model = found[1] if found else model
        instructions = sorted(set(re.findall(r"\b(?:avx2|avx512f|avx512_vnni|avx512_bf16|amx_tile|asimd)\b", told)))
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": model,
        "instructions": instructions,
        "cores": available_cores(),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": versions,
        "commit": find_commit(),
    }


failures: list[str] = []
"""What failed in this run; a benchmark goes on without it, and ends with 1."""


def run(name: str, command: Sequence[str], **given: Any) -> str | None:
    """Run a command, and return what it printed; where it fails, tell its last lines, and return nothing."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, **given
    )
    if done.returncode == 0:
        return done.stdout
    failures.append(name)
    print(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}", file=sys.stderr, flush=True)
    return None


def report(
    parser: ArgumentParser,
    options: Namespace,
    measure: Callable[[Namespace, Path], dict[str, Any]],
    *tables: Callable[[dict[str, Any]], str],
) -> None:
    """Measure in a folder of its own, write JSON to ``options.out``, print tables; end with 1 where a part failed."""
    if options.out and not options.out.absolute().parent.is_dir():
        parser.error(f"--out: there is no folder {options.out.parent}")
    with TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(*(table(result) for table in tables), sep="\n\n")
    if failures:
        sys.exit(f"failed, for the reasons above: {', '.join(dict.fromkeys(failures))}")


def order_cpus() -> list[int]:
    """Return the CPUs that this process may use: one hardware thread of each core, then the cores' other ones."""
    threads: Counter[str] = Counter()
    ranked = []
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            core = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            core = str(cpu)
        ranked.append((threads[core], cpu))
        threads[core] += 1
    return [cpu for _, cpu in sorted(ranked)]


def child(script: Path, name: str, given: dict[str, Any], cores: int | None = None) -> dict[str, Any] | None:
    """Run one of a script's measurements in a process of its own.

    Args:
        script: a benchmark, whose hidden option ``--child`` reads arguments from standard input and prints JSON last.
        name: of the measurement.
        given: its arguments.
        cores: how many cores it may use; all by default. Linux only.

    Returns:
        What it printed, or nothing where it failed.
    """
    chosen = order_cpus()[:cores] if cores else []
    printed = run(
        name,
        [sys.executable, str(script), ".", "--child", name],
        input=json.dumps(given),
        preexec_fn=(lambda: os.sched_setaffinity(0, chosen)) if cores else None,
    )
    found: dict[str, Any] | None = None if printed is None else json.loads(printed.splitlines()[-1])
    return found
