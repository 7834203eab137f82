from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs the extra own")

from clothing_classifier.runs.folder import RunError, read_table, settle_table, write_bytes, write_table

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


def test_a_table_is_settled_once(tmp_path: Path) -> None:
    file, rows = tmp_path / "folds.csv", [(name, 0) for name in NAMES]
    for _ in range(2):
        settle_table(file, ("path", "fold"), rows, ("path", "fold"))
    with pytest.raises(RunError, match=r"folds\.csv: this run began with other senders"):
        settle_table(file, ("path", "fold"), [(name, 1) for name in NAMES], ("path", "fold"))
