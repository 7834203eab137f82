from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clothing_classifier.cores import available_cores

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def lay(root: Path, group: str, quotas: dict[str, str]) -> Path:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(f"1:name=systemd:/elsewhere\n0::{group}\n")
    for name, content in quotas.items():
        folder = root / "sys" / "fs" / "cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(content)
    return root


def test_without_a_quota_it_is_what_the_process_is_bound_to(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == HERE
    assert available_cores(lay(tmp_path, "/", {"": "max 100000\n"})) == HERE


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores here")
def test_a_process_bound_to_one_core_has_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        "from clothing_classifier.cores import available_cores; print(available_cores())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"


@pytest.mark.parametrize("content", ["50000 100000\n", "100000 100000", "1 100000"])
def test_a_containers_quota_counts_as_whole_cores(tmp_path: Path, content: str) -> None:
    assert available_cores(lay(tmp_path, "/", {"": content})) == 1


def test_the_least_quota_of_all_groups_that_it_is_in_counts(tmp_path: Path) -> None:
    quotas = {"a/b": "max 100000", "a": "100000 100000", "": "900000 100000", "beside": "1 100000"}
    assert available_cores(lay(tmp_path, "/a/b/c", quotas)) == 1


@pytest.mark.parametrize("content", ["", "max", "1 2 3", "x 100000", "100000 0", "9000000 100000"])
def test_a_quota_that_says_nothing_changes_nothing(tmp_path: Path, content: str) -> None:
    assert available_cores(lay(tmp_path, "/", {"": content})) == HERE


def test_a_group_outside_of_what_is_visible_does_no_harm(tmp_path: Path) -> None:
    assert available_cores(lay(tmp_path, "/../../other", {})) == HERE
