from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clothing_classifier.machine import Room, Turns, available_cores, available_memory, share_cores

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
        "from clothing_classifier.machine import available_cores; print(available_cores())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"


@pytest.mark.parametrize("content", ["50000 100000\n", "100000 100000", "1 100000", "0 100000"])
def test_a_containers_quota_counts_as_whole_cores(tmp_path: Path, content: str) -> None:
    assert available_cores(lay(tmp_path, "/", {"": content})) == 1


@pytest.mark.skipif((HERE or 1) < 2, reason="needs two cores")
def test_a_core_and_a_half_are_two(tmp_path: Path) -> None:
    assert available_cores(lay(tmp_path, "/", {"": "150000 100000"})) == 2


def test_the_least_quota_of_all_groups_that_it_is_in_counts(tmp_path: Path) -> None:
    quotas = {"a/b": "max 100000", "a": "100000 100000", "": "900000 100000", "beside": "1 100000"}
    assert available_cores(lay(tmp_path, "/a/b/c", quotas)) == 1


@pytest.mark.parametrize("content", ["", "max", "1 2 3", "x 100000", "100000 0", "9000000 100000"])
def test_a_quota_that_says_nothing_changes_nothing(tmp_path: Path, content: str) -> None:
    assert available_cores(lay(tmp_path, "/", {"": content})) == HERE


def test_of_control_groups_of_the_first_version_nothing_is_known(tmp_path: Path) -> None:
    quotas = lay(tmp_path, "/", {"": "1 100000"})
    (quotas / "proc" / "self" / "cgroup").write_text("4:cpu:/docker\n")
    assert available_cores(tmp_path) == HERE


def test_each_core_computes_its_own_photos() -> None:
    assert share_cores(3) == (3, 1)
    assert share_cores() == (available_cores(), 1)


def test_a_group_outside_of_what_is_visible_does_no_harm(tmp_path: Path) -> None:
    assert available_cores(lay(tmp_path, "/../../other", {})) == HERE


def test_memory_is_what_is_free_and_no_more_than_the_groups_may_hold(tmp_path: Path) -> None:
    lay(tmp_path, "/a/b", {})
    (tmp_path / "proc" / "meminfo").write_text(
        "MemTotal: 900 kB\nMemFree: 9 kB\nMemAvailable:    700 kB\nBuffers: 1 kB\n"
    )
    assert available_memory(tmp_path) == 700 * 1024
    for name, content in (("a/b", "max\n"), ("a", "600000\n"), ("", "9000000\n")):
        (tmp_path / "sys" / "fs" / "cgroup" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / "fs" / "cgroup" / name / "memory.max").write_text(content)
    assert available_memory(tmp_path) == 600_000


def test_memory_is_known_or_assumed_where_there_is_no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_memory(tmp_path) > 2**26, "all of this machine's"
    (tmp_path / "proc").mkdir()
    for damaged in ("MemAvailable:", "MemAvailable: much"):
        (tmp_path / "proc" / "meminfo").write_text(damaged)
        assert available_memory(tmp_path) > 2**26
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert available_memory(tmp_path) == 4 * 2**30


def test_who_needs_more_than_is_free_waits() -> None:
    room, entered, leave = Room(100), threading.Event(), threading.Event()
    order: list[str] = []

    def hold(name: str, amount: int, first: bool = False) -> None:
        with room.take(amount):
            order.append(name)
            if first:
                entered.set()
                assert leave.wait(30)

    threads = [threading.Thread(target=hold, args=("first", 70, True))]
    threads[0].start()
    assert entered.wait(30)
    hold("small", 30)  # fits beside it
    threads.append(threading.Thread(target=hold, args=("large", 31)))
    threads[1].start()
    threads[1].join(0.2)
    assert order == ["first", "small"], "the large one waits"
    leave.set()
    for thread in threads:
        thread.join(30)
    assert order == ["first", "small", "large"]


def test_all_that_fit_go_on_when_room_is_given_back() -> None:
    room, together = Room(100), threading.Barrier(3)

    def hold() -> None:
        with room.take(50):
            together.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    with room.take(100):
        for thread in threads:
            thread.start()
            thread.join(0.05)
    together.wait(10)
    for thread in threads:
        thread.join(10)


def test_what_is_larger_than_all_of_it_goes_alone_and_gives_it_back_when_it_fails() -> None:
    room = Room(100)
    with pytest.raises(ZeroDivisionError), room.take(1000):
        raise ZeroDivisionError
    with room.take(1000):
        pass


@pytest.mark.skipif(os.name != "posix", reason="processes take turns on POSIX alone")
def test_one_process_at_a_time_has_more_than_its_share(tmp_path: Path) -> None:
    with (tmp_path / "turns").open("wb") as file:
        number = file.fileno()
        code = (
            "import sys\n"
            "from clothing_classifier.machine import Turns\n"
            f"with Turns(100, {number}).take(101):\n"
            "    print('taken', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(number,)
        )
        assert other.stdout is not None
        assert other.stdout.readline() == b"taken\n"
        turns, order = Turns(100, number), []

        def take() -> None:
            with turns.take(101):
                order.append("large")

        with turns.take(100):
            order.append("small")
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.3)
        assert order == ["small"], "the large one waits"
        other.kill()  # the kernel gives back what it held
        thread.join(30)
        assert order == ["small", "large"]
        other.communicate()


@pytest.mark.skipif(os.name != "posix", reason="processes take turns on POSIX alone")
def test_a_turn_is_given_back_to_the_other_processes(tmp_path: Path) -> None:
    with (tmp_path / "turns").open("wb") as file:
        number = file.fileno()
        with Turns(100, number).take(101):
            pass
        code = f"import fcntl\nfcntl.lockf({number}, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        subprocess.run([sys.executable, "-c", code], pass_fds=(number,), check=True, timeout=30)
