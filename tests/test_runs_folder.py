from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra own")

from clothing_classifier.dataset import Manifest
from clothing_classifier.runs import folder
from clothing_classifier.runs.folder import (
    RunError,
    claim,
    read_table,
    require_apart,
    require_place,
    settle_table,
    to_json,
    write_arrays,
    write_bytes,
    write_table,
)

NAMES = ["plain.jpg", "a\rb.jpg", "c\nd.jpg", 'e,"f".jpg', " g.jpg", os.fsdecode(b"\xe4.jpg")]


def test_tables_are_read_as_they_were_written_whatever_files_are_called(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("path", "fold"), [(name, number) for number, name in enumerate(NAMES)])
    rows = read_table(tmp_path / "t.csv")
    assert [(row["path"], row["fold"]) for row in rows] == [(name, str(number)) for number, name in enumerate(NAMES)]


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "model.onnx"
    place.mkdir()
    (place / "kept").write_text("here")
    with pytest.raises(OSError, match="directory") as caught:
        write_bytes(place, b"content")
    assert caught.value.filename == str(place)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    with pytest.raises(FileNotFoundError) as caught:
        write_bytes(tmp_path / "nowhere" / "report.html", b"content")
    assert caught.value.filename == str(tmp_path / "nowhere" / "report.html")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_file_that_cannot_be_written_whole_stays_what_it_was(tmp_path: Path) -> None:
    import resource

    (tmp_path / "model.onnx").write_bytes(b"old")
    (tmp_path / "model.partial").write_bytes(b"a person's own")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match=r"model\.onnx"):
            write_bytes(tmp_path / "model.onnx", bytes(2_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        "model.onnx": b"old",
        "model.partial": b"a person's own",
    }


def test_arrays_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_arrays(tmp_path / "fold-0.npz", logits=np.eye(3), made=np.array(["c0"]))
    assert [path.name for path in tmp_path.iterdir()] == ["fold-0.npz"]
    with np.load(tmp_path / "fold-0.npz") as found:
        assert {name: value.tolist() for name, value in found.items()} == {"logits": np.eye(3).tolist(), "made": ["c0"]}


def test_json_is_for_people_and_keeps_every_name() -> None:
    text = to_json({"label": "Röcke", "path": NAMES[-1]}).decode("utf-8")
    assert text == '{\n  "label": "Röcke",\n  "path": "\\udce4.jpg"\n}\n'
    assert json.loads(text)["path"] == NAMES[-1]


def test_a_table_is_settled_once(tmp_path: Path) -> None:
    file, rows = tmp_path / "folds.csv", [(name, 0) for name in NAMES]
    for _ in range(2):
        settle_table(file, ("path", "fold"), rows, ("path", "fold"))
    for other in ([(name, 1) for name in NAMES], rows[::-1], rows[1:]):
        before = file.read_bytes()
        with pytest.raises(RunError, match=r"folds\.csv: this run began with other senders"):
            settle_table(file, ("path", "fold"), other, ("path", "fold"))
        assert file.read_bytes() == before


def test_what_does_not_decide_may_change_and_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "folds.csv"
    settle_table(file, ("path", "fold"), [("a.jpg", 0)], ("path", "fold"))
    settle_table(file, ("path", "kids", "fold"), [("a.jpg", "True", 0)], ("path", "fold"))
    assert read_table(file) == [{"path": "a.jpg", "kids": "True", "fold": "0"}]
    with pytest.raises(RunError, match="other senders"):
        settle_table(file, ("path", "sender", "fold"), [("a.jpg", "anna", 0)], ("path", "sender", "fold"))


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("x" * 200_000), Path.mkdir])
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(tmp_path / "folds.csv")
    with pytest.raises(RunError, match=r"folds\.csv: cannot be read .*; choose another folder with --out"):
        settle_table(tmp_path / "folds.csv", ("path", "fold"), [("a.jpg", 0)], ("path", "fold"))


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "first"
    config = {"seed": 1, "mean": (1, 2), "label": "Röcke"}
    for _ in range(2):
        claim(out, config)
    assert json.loads((out / "config.json").read_text("utf-8")) == {**config, "mean": [1, 2]}
    before = (out / "config.json").read_bytes()
    with pytest.raises(RunError, match="first: holds a run that differs in: base, label, seed; choose another folder"):
        claim(out, {"seed": 2, "mean": (1, 2), "base": "small"})
    assert (out / "config.json").read_bytes() == before


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"null", b"[" * 100_000])
def test_a_configuration_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RunError, match=r"config\.json: is damaged; choose another folder"):
        claim(tmp_path, {"seed": 1})
    assert (tmp_path / "config.json").read_bytes() == content


@pytest.mark.parametrize(
    "name", ["checkpoint.pt", "fold-1.npz", "fold-0.checkpoint.pt", "manifest.csv", "predictions.csv", "model.onnx"]
)
def test_what_nobody_knows_whose_it_is_is_neither_gone_on_from_nor_written_over(tmp_path: Path, name: str) -> None:
    claim(tmp_path, {"seed": 1})
    (tmp_path / name).touch()
    claim(tmp_path, {"seed": 1})
    (tmp_path / "config.json").unlink()
    with pytest.raises(RunError, match=f"holds {name} but no config.json; choose another folder"):
        claim(tmp_path, {"seed": 2})
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def linked() -> Callable[[Path, Path], Path]:
    """A function: makes a link to a folder and returns it."""

    def link(place: Path, target: Path) -> Path:
        try:
            place.symlink_to(target, target_is_directory=True)
        except OSError:  # Windows lets not everybody
            pytest.skip("needs links")
        return place

    return link


def test_a_run_is_not_among_the_photos_by_whatever_way(tmp_path: Path, linked: Callable[[Path, Path], Path]) -> None:
    photos = tmp_path / "photos"
    (photos / "bow").mkdir(parents=True)
    link = linked(tmp_path / "link", photos)
    for root, other in ((photos, link), (link, photos)):
        for edition in ("folder per class", "folder per class, in parts"):
            with pytest.raises(RunError, match="is the folder of the photos; choose another --out"):
                require_apart(other, Manifest(root, edition, ()))
            for out in (other / "run", other / "bow" / "run"):
                with pytest.raises(RunError, match="lies in the folder of the photos, where folders are classes"):
                    require_apart(out, Manifest(root, edition, ()))
        require_apart(tmp_path / "photos run", Manifest(root, "folder per class", ()))
        require_apart(other / "run", Manifest(root, "GitHub", ()))


def test_a_place_is_asked_for_and_left_as_it_was(
    tmp_path: Path, linked: Callable[[Path, Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    for out in (tmp_path / "here", Path("here"), Path("new"), tmp_path / "new" / "run"):
        require_place(out)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "here"]
    for out, said in ((tmp_path / "file", "written to"), (Path("file"), "written to"), (Path("file/run"), "made in")):
        with pytest.raises(RunError, match=f"{out.name}: cannot be {said}.*; choose another --out"):
            require_place(out)
    lost = linked(tmp_path / "lost", tmp_path / "gone")
    with pytest.raises(RunError, match=r"lost: cannot be written to \(No such file"):
        require_place(lost)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path: Path) -> None:
    """A package that is installed somewhere below another project's checkout is not of that project's commit."""

    def git(*words: str) -> str:
        who = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", "-C", str(tmp_path), *who, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    source = Path(folder.__file__).parents[1]
    for place in (tmp_path / "src", tmp_path / "venv" / "lib" / "python3" / "site-packages"):
        shutil.copytree(source, place / source.name, ignore=shutil.ignore_patterns("models", "__pycache__", "service"))
    code = "from clothing_classifier.runs.folder import find_commit; print(find_commit())"

    def ask(place: Path, **others: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", **others}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        )
        return done.stdout.strip()

    assert ask(tmp_path / "src") == "None"
    git("init", "-q")
    assert ask(tmp_path / "src") == "None", "a checkout without a commit"
    git("add", "src")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")[:12]
    assert ask(tmp_path / "src") == commit
    assert ask(tmp_path / "src", PATH="") == "None", "there is no git"
    with (tmp_path / "src" / source.name / "__init__.py").open("a") as file:
        file.write("# changed")
    assert ask(tmp_path / "src") == f"{commit}-dirty"
    assert ask(tmp_path / "venv" / "lib" / "python3" / "site-packages") == "None"
