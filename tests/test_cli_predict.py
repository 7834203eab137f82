from __future__ import annotations

import csv
import io
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clothing_classifier.bulk import GROUP, Row
from clothing_classifier.card import ModelCard
from clothing_classifier.classifier import DECIMALS, Classifier, Prediction
from clothing_classifier.cli import main
from clothing_classifier.cli.predict import command
from clothing_classifier.cli.table import Layout, make_writer, read_kept
from clothing_classifier.images import DEFAULT_LIMITS
from clothing_classifier.taxonomy import is_printable

COLOURS = {"red": (220, 30, 20), "green": (10, 200, 40), "blue": (20, 40, 210), "grey": (128, 128, 128)}
HEADER = ["path", "label", "probability", "sure", "error"]

# A test run in the background of a shell ignores Ctrl-C, and so would what it starts.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from clothing_classifier.cli import main; main(prog_name='clothing')"
)
posix = pytest.mark.skipif(os.name != "posix", reason="signals and file names of POSIX")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one photo of each class, and a grey one."""
    folder = tmp_path_factory.mktemp("photos")
    for label, colour in COLOURS.items():
        Image.new("RGB", (16, 24), colour).save(folder / f"{label}.png")
    return folder


@pytest.fixture
def mixed(tmp_path: Path, photos: Path) -> Path:
    """A folder with a photo that cannot be read between two that can."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.png").write_bytes((photos / "red.png").read_bytes())
    (folder / "b.jpg").write_bytes(b"not a picture")
    (folder / "c.png").write_bytes((photos / "grey.png").read_bytes())
    return folder


def predict(model: Path, *arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["predict", "--model", str(model), *map(str, arguments)], input=stdin)


def start(model: Path, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, "predict", "--model", str(model), *map(str, arguments)],
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_has_its_columns_and_no_others(tiny_model: Path, photos: Path) -> None:
    result = predict(tiny_model, photos, "--format", "csv")
    assert result.exit_code == 0
    classifier = Classifier.load(tiny_model)
    header, *rows = csv.reader(io.StringIO(result.stdout, newline=""))
    assert header == HEADER
    assert [row[0] for row in rows] == [str(photos / f"{label}.png") for label in sorted(COLOURS)]
    for path, label, probability, sure, error in rows:
        prediction = classifier.predict(path)
        assert (label, sure, error) == (prediction.label, "false" if "grey" in path else "true", "")
        assert probability == f"{prediction.probability:.6f}"
    assert result.stderr == "4 photos: 3 sure, 1 not sure, 0 could not be read\n"


def test_further_classes_are_further_columns(tiny_model: Path, photos: Path) -> None:
    for top in (3, 99):
        result = predict(tiny_model, photos / "red.png", "--format", "csv", "--top", top)
        header, row = csv.reader(io.StringIO(result.stdout, newline=""))
        assert header == [*HEADER, "label_2", "probability_2", "label_3", "probability_3"]
        assert {row[1], row[5], row[7]} == {"red", "green", "blue"}
        assert float(row[2]) + float(row[6]) + float(row[8]) == pytest.approx(1, abs=3e-6)


def test_jsonl_has_the_same_keys(tiny_model: Path, mixed: Path) -> None:
    result = predict(tiny_model, mixed, "--format", "jsonl", "--top", "2")
    first, failed, last = map(json.loads, result.stdout.splitlines())
    assert list(first) == list(failed) == [*HEADER, "label_2", "probability_2"]
    assert (first["label"], first["sure"], first["error"]) == ("red", True, None)
    assert first["probability"] == round(first["probability"], 6) > 0.9
    assert last["sure"] is False
    assert failed.pop("path") == str(mixed / "b.jpg")
    assert failed.pop("error")
    assert set(failed.values()) == {None}


def test_a_table_says_not_sure_and_the_best_guess(tiny_model: Path, mixed: Path) -> None:
    result = predict(tiny_model, mixed)
    title, first, failed, last = result.stdout.splitlines()
    assert title.split() == ["answer", "probability", "photo"]
    assert first.split()[0] == "red"
    assert last.startswith("not sure, red?")
    assert failed.startswith("could not be read")
    assert {line.index(str(mixed)) for line in (first, failed, last)} == {title.index("photo")}
    assert predict(tiny_model, mixed, "--top", 2).stdout.splitlines()[1].split()[2] in COLOURS


def test_one_bad_photo_is_a_row_and_an_exit_code(tiny_model: Path, mixed: Path) -> None:
    result = predict(tiny_model, mixed, mixed / "none.jpg", "--format", "csv")
    assert result.exit_code == 1
    good, bad, unsure, missing = rows_of(result.stdout)
    assert (good["label"], unsure["sure"]) == ("red", "false")
    for row, name in ((bad, "b.jpg"), (missing, "none.jpg")):
        assert row.pop("path") == str(mixed / name)
        assert row.pop("error")
        assert set(row.values()) == {""}
    assert "2 could not be read" in result.stderr


def test_the_threshold_may_be_chosen(tiny_model: Path, photos: Path) -> None:
    result = predict(tiny_model, photos / "grey.png", "--format", "csv", "--threshold", 0.3)
    assert rows_of(result.stdout)[0]["sure"] == "true"


def test_the_limits_may_be_chosen(tiny_model: Path, photos: Path) -> None:
    for limit in (("--max-bytes", 10), ("--max-megapixels", 16 * 23 / 1e6), ("--max-megapixels", 1e-9)):
        result = predict(tiny_model, photos / "red.png", "--format", "csv", *limit)
        assert result.exit_code == 1
    roomy = ("--max-bytes", 10**6, "--max-megapixels", 16 * 24 / 1e6, "--threads", 1)
    assert predict(tiny_model, photos / "red.png", *roomy).exit_code == 0


def test_the_help_tells_the_limits_that_are_kept() -> None:
    told = {parameter.name: getattr(parameter, "help", None) or "" for parameter in command.params}
    assert f"[default: {DEFAULT_LIMITS.max_bytes}]" in told["max_bytes"]
    assert f"[default: {DEFAULT_LIMITS.max_pixels / 1e6:g}]" in told["max_megapixels"]


def test_paths_come_from_standard_input(tiny_model: Path, photos: Path) -> None:
    names = [photos / "red.png", "", photos / "none.png", "  ", photos / "blue.png"]
    stdin = "\n".join(map(str, names)).encode() + b"\r\n"
    result = predict(tiny_model, photos / "green.png", "-", photos / "grey.png", "--format", "csv", stdin=stdin)
    assert [Path(row["path"]).stem for row in rows_of(result.stdout)] == ["green", "red", "none", "blue", "grey"]
    assert result.exit_code == 1
    assert predict(tiny_model, "-", "--format", "csv", stdin=b"").stdout.splitlines() == [",".join(HEADER)]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_photo_on_standard_input_is_told_from_a_list(tiny_model: Path, tmp_path: Path, suffix: str) -> None:
    """As of ``curl … | clothing predict -``: its bytes are no paths."""
    photo = tmp_path / f"photo.{suffix}"
    Image.effect_noise((64, 64), 99).convert("RGB").save(photo)
    result = predict(tiny_model, "-", "--format", "csv", stdin=photo.read_bytes())
    assert (result.exit_code, len(result.stdout.splitlines())) == (2, 1)
    assert "standard input holds a photo, not a list of paths; save it to a file, and name that" in result.stderr


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.CSV"])
def test_the_suffix_of_out_says_the_format(tiny_model: Path, photos: Path, tmp_path: Path, name: str) -> None:
    result = predict(tiny_model, photos, "--out", tmp_path / name)
    assert (result.exit_code, result.stdout) == (0, "")
    layout = name[5:].lower()
    assert (tmp_path / name).read_text("utf-8") == predict(tiny_model, photos, "--format", layout).stdout


def test_format_goes_before_the_suffix(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    predict(tiny_model, photos, "--out", tmp_path / "rows.csv", "--format", "jsonl")
    assert len([json.loads(line) for line in (tmp_path / "rows.csv").read_text().splitlines()]) == 4


def test_wrong_usage_is_code_2_and_names_what_is_wrong(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "rows.csv"
    for arguments, message in (
        ((), "Missing argument"),
        ((photos, "--top", 0), "--top"),
        ((photos, "--threshold", 2), "--threshold"),
        ((photos, "--format", "xml"), "--format"),
        ((photos, "--out", tmp_path / "rows.txt"), "rows.txt: name it .csv or .jsonl"),
        ((photos, "--out", tmp_path / "none" / "rows.csv"), "rows.csv: its folder does not exist; make it, or"),
        ((empty, "--out", out), f"Error: {empty}: is a folder without photos"),
        ((tmp_path / "gone", empty, "--out", out), f"Error: {tmp_path / 'gone'}: does not exist; and so on, for all 2"),
        (("", "--out", out), "Error: '': is an empty name, and names no photo"),
        (
            ("https://a.example/hat.jpg", "--out", out),
            "https://a.example/hat.jpg: is a web address, not a file; download",
        ),
        ((photos, "--model", tmp_path / "none.onnx", "--out", out), "none.onnx: cannot be read"),
        ((photos, "--model", photos / "red.png", "--out", out), "red.png: is not an ONNX model"),
    ):
        result = predict(tiny_model, *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert message in result.stderr
        assert isinstance(result.exception, SystemExit)
        assert not out.exists()


values = st.text(st.characters(exclude_characters="\0"), min_size=1)
wild_rows = st.builds(Row, values, st.just(Prediction(("a, b", '"c"'), (0.75, 0.25), 0.5))) | st.builds(
    Row, values, st.none(), values
)


@given(st.lists(wild_rows))
def test_any_file_name_survives_csv_and_jsonl(rows: Sequence[Row]) -> None:
    for layout in ("csv", "jsonl"):
        stream = io.StringIO(newline="")
        write = make_writer(layout, stream, ["a, b", '"c"'], 2)
        for row in rows:
            write(row)
        text = stream.getvalue()
        if layout == "jsonl":
            assert text.isascii()
        lines = rows_of(text) if layout == "csv" else [json.loads(line) for line in text.splitlines()]
        found = [(line["path"], line["label"] or "", line["error"] or "", line["label_2"] or "") for line in lines]
        labels = [row.prediction.labels if row.prediction else ("", "") for row in rows]
        assert found == [(row.path, a, row.error or "", b) for row, (a, b) in zip(rows, labels, strict=True)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_file_name_stays_in_its_cell_where_a_spreadsheet_parts_them_elsewhere(delimiter: str) -> None:
    stream = io.StringIO(newline="")
    path = f"photos/a{delimiter}=1+1{delimiter}.jpg"
    make_writer("csv", stream, ["Hat"], 1, header=False)(Row(path, Prediction(("Hat",), (1.0,), 0.5)))
    (cells,) = csv.reader([stream.getvalue()], delimiter=delimiter)
    assert cells[0].startswith(path)


@given(st.lists(wild_rows))
def test_no_file_name_breaks_or_steers_a_table(rows: Sequence[Row]) -> None:
    stream = io.StringIO()
    write = make_writer("table", stream, ["a, b", '"c"'], 2)
    for row in rows:
        write(row)
    lines = stream.getvalue().split("\n")
    assert len(lines) == len(rows) + 2
    assert all(map(is_printable, lines))


def test_columns_of_a_table_stand_below_each_other_whatever_classes_are_called() -> None:
    stream = io.StringIO()
    labels = ("裙子", "👗", "Pele\u0301", "Hat")  # two characters of two columns; one; an accent by itself
    write = make_writer("table", stream, labels, 2)
    for first in range(len(labels)):
        turned = labels[first:] + labels[:first]
        write(Row("photo", Prediction(turned, (0.7, 0.1, 0.1, 0.1), 0.5)))
    assert stream.getvalue().splitlines() == [
        "answer           probability  then           photo",
        "裙子                   70.0%  👗      10.0%  photo",
        "👗                     70.0%  Pele\u0301    10.0%  photo",
        "Pele\u0301                   70.0%  Hat     10.0%  photo",
        "Hat                    70.0%  裙子    10.0%  photo",
    ]


@posix
def test_wild_file_names_pass_through_the_real_program(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "wild")
    os.mkdir(folder)
    content = (photos / "red.png").read_bytes()
    for name in (b"line\nbreak.png", b'comma,"quote".png', b"\xff\xfe.png", "größe 👗.png".encode(), b"\x1b[2J.png"):
        try:
            Path(os.fsdecode(os.path.join(folder, name))).write_bytes(content)
        except OSError:  # a file system that only takes UTF-8
            assert name.startswith(b"\xff")
    wanted = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    environment = {**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
    for layout in ("csv", "jsonl", "table"):
        code, out, err = finish(start(tiny_model, os.fsdecode(folder), "--format", layout, env=environment))
        assert (code, err) == (0, b"%d photos: %d sure, 0 not sure, 0 could not be read\n" % ((len(wanted),) * 2))
        if layout == "csv":
            found = [os.fsencode(row["path"]) for row in rows_of(out.decode("utf-8", "surrogateescape"))]
        elif layout == "jsonl":
            found = [os.fsencode(json.loads(line)["path"]) for line in out.splitlines()]
        else:
            assert b"\x1b" not in out
            assert len(out.splitlines()) == len(wanted) + 1
            continue
        assert sorted(found) == wanted


@posix
def test_the_recipe_of_the_readme_sorts_photos_whatever_they_are_called(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    places = {
        'a, "b"/1.png': "red",
        "a/1.png": "red",
        "line\nbreak.png": "green",
        os.fsdecode(b"caf\xe9.png"): "blue",
        "=1 '.png": "grey",
    }
    for place, colour in places.items():
        (tmp_path / "photos" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / f"{colour}.png", tmp_path / "photos" / place)
    (tmp_path / "photos" / "broken.png").write_bytes(b"not a picture")
    assert finish(start(tiny_model, "photos", "--out", "photos.csv", cwd=tmp_path))[0] == 1

    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    (recipe,) = [part for part in readme.split("```")[1::2] if "photos.csv" in part and part.startswith("python")]
    command = [sys.executable, "-c", dedent(recipe.removeprefix("python"))]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = {path.relative_to(tmp_path / "sorted") for path in (tmp_path / "sorted").rglob("*.png")}
    assert found == {Path("not sure" if colour == "grey" else colour, place) for place, colour in places.items()}
    assert len(list((tmp_path / "photos").rglob("*.png"))) == len(places) + 1
    assert b"FileExistsError" in subprocess.run(command, capture_output=True, cwd=tmp_path).stderr


@posix
def test_a_terminal_that_cannot_show_a_name_gets_a_table_all_the_same(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "größe.png"
    path.write_bytes((photos / "red.png").read_bytes())
    code, out, _ = finish(start(tiny_model, path, env={**os.environ, "PYTHONIOENCODING": "ascii"}))
    assert code == 0
    assert out.isascii()


def test_a_name_that_looks_like_an_option_can_be_given(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "--top").write_bytes((photos / "red.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    result = predict(tiny_model, "--format", "csv", "--", "--top")
    assert rows_of(result.stdout)[0]["path"] == "--top"


def test_exit_codes_of_the_real_program(tiny_model: Path, mixed: Path) -> None:
    for arguments, wanted in (((mixed / "a.png",), 0), ((mixed,), 1), ((mixed, "--top", "none"), 2)):
        code, _, err = finish(start(tiny_model, *arguments))
        assert code == wanted
        assert b"Traceback" not in err


@posix
def test_a_pipe_that_nobody_reads_on_ends_it_without_a_word(tiny_model: Path, photos: Path) -> None:
    names = b"%s\n" % os.fsencode(photos / "red.png") * 400
    process = start(tiny_model, "-", "--format", "csv", stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(names[: len(names) // 2])
    process.stdin.flush()
    assert process.stdout.readline() == b"path,label,probability,sure,error\n"
    process.stdout.close()
    process.stdin.write(names[len(names) // 2 :])
    process.stdin.flush()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    process.stderr.close()
    process.stdin.close()


@posix
def test_a_stopped_run_keeps_its_rows(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    process = start(tiny_model, "-", "--out", out, "--threads", 1, stdin=subprocess.PIPE)
    assert process.stdin
    slow = tmp_path / "slow.png"  # still under way when the first ones are written
    Image.new("L", (9000, 9000)).save(slow, compress_level=1)
    for photo in (photos / "red.png", slow):
        process.stdin.write(b"%s\n" % os.fsencode(photo) * GROUP)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while (not out.exists() or out.read_bytes().count(b"\n") < GROUP + 1) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)  # while it waits for further paths
    code, _, err = finish(process)
    assert code == 130
    assert err.decode().strip() == f"Stopped. The rows of {GROUP} photos are written; --resume goes on from there."
    rows = rows_of(out.read_text("utf-8"))
    assert [(row["label"], row["sure"]) for row in rows] == [("red", "true")] * GROUP


@posix
@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_two_runs_do_not_write_to_one_file(
    tiny_model: Path, photos: Path, tmp_path: Path, options: Sequence[str]
) -> None:
    """The first one is also held to its file after it has put another one in its place."""
    out, link = tmp_path / "rows.csv", tmp_path / "link.csv"
    link.symlink_to(out)
    (tmp_path / "b.png").write_bytes(b"not a picture")
    if options:
        assert predict(tiny_model, photos / "red.png", tmp_path / "b.png", "--out", out).exit_code == 1
    process = start(tiny_model, photos / "red.png", "-", "--out", out, *options, stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(b"%s\n" % os.fsencode(photos / "blue.png") * 4 * GROUP)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while (not out.exists() or b"blue.png" not in out.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.02)
    for name, more in ((out, ()), (out, ("--resume",)), (link, ("--resume",))):
        result = predict(tiny_model, photos, "--out", name, *more)
        assert (result.exit_code, f"{name}: another run writes to it; wait for" in result.stderr) == (2, True)
    code, _, _ = finish(process)
    assert code == 0
    assert [Path(row["path"]).name for row in rows_of(out.read_text("utf-8"))] == ["red.png"] + ["blue.png"] * 4 * GROUP
    assert {path.name for path in tmp_path.iterdir()} == {"b.png", "link.csv", "rows.csv"}


@posix
def test_a_file_without_a_lock_is_written(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert predict(tiny_model, photos, "--out", tmp_path / "rows.csv").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    assert predict(tiny_model, photos, "--out", os.devnull, "--format", "csv").exit_code == 0
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    process = start(tiny_model, photos, "--out", pipe)
    assert pipe.read_bytes().count(b"\n") == 1 + len(COLOURS)
    assert finish(process)[0] == 0


@posix
@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_a_watched_folder_shows_each_row_when_it_is_done(tiny_model: Path, photos: Path, end: bytes) -> None:
    process = start(tiny_model, "-", "--format", "jsonl", stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    for label in ("red", "blue", "green"):
        process.stdin.write(os.fsencode(photos / f"{label}.png") + end)
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 60)[0], "its row is waited for"
        assert json.loads(process.stdout.readline())["label"] == label
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err.strip().startswith(b"Stopped."), err.strip().count(b"\n")) == (130, True, 0)


WILD = ["comma,.png", 'quote".png', "größe.png", "plain.png"] + ["line\nbreak.png", "\r.png"] * (os.name == "posix")


@settings(deadline=None)  # a disk may be slow
@given(data=st.data(), layout=st.sampled_from(["csv", "jsonl"]))
def test_a_run_that_was_cut_off_anywhere_goes_on_to_the_same_rows(
    tiny_model: Path, resumed: dict[str, tuple[Path, bytes]], data: st.DataObject, layout: str
) -> None:
    folder, whole = resumed[layout]
    out = folder.parent / f"cut.{layout}"
    out.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    result = predict(tiny_model, folder, folder / "plain.png", "--out", out, "--resume")
    assert result.exit_code == 1, "a row of a photo that could not be read is one, whichever run has written it"
    assert out.read_bytes() == whole
    assert f"{len(WILD) + 2} photos: {len(WILD) + 1} sure, 0 not sure, 1 could not be read" in result.stderr


@pytest.fixture(scope="module")
def resumed(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes]]:
    """By format: a folder of photos with wild names, and all rows of a run on it; one photo comes twice."""
    folder = tmp_path_factory.mktemp("resumed") / "photos"
    folder.mkdir()
    for name in WILD:
        (folder / name).write_bytes((photos / "red.png").read_bytes())
    (folder / "broken.png").write_bytes(b"not a picture")
    found = {}
    for layout in ("csv", "jsonl"):
        out = folder.parent / f"whole.{layout}"
        assert predict(tiny_model, folder, folder / "plain.png", "--out", out, "--resume").exit_code == 1
        found[layout] = (folder, out.read_bytes())
    return found


def test_a_run_does_not_go_on_in_a_file_of_another_kind(tiny_model: Path, mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    assert predict(tiny_model, mixed, "--out", out, "--top", 2).exit_code == 1
    rows = out.read_bytes()
    for content, layout, line in (
        (rows, "csv", 1),
        (b"my notes\n", "csv", 1),
        (b"my notes\n", "jsonl", 1),
        (b'{"path": "a"}\n', "jsonl", 1),
        (b'{"path": "a", "label": null, "probability": null, "sure": null, "error": "b"}\n[]\n', "jsonl", 2),
        (f"{','.join(HEADER)}\na,b\n".encode(), "csv", 2),
    ):
        out.write_bytes(content)
        result = predict(tiny_model, mixed, "--out", out, "--format", layout, "--resume")
        assert result.exit_code == 2
        assert f"{out}: line {line} is not what this command writes ({layout}, --top 1)" in result.stderr
        assert out.read_bytes() == content
    for arguments in (("--resume",), ("--resume", "--out", out, "--format", "table")):
        result = predict(tiny_model, mixed, *arguments)
        assert (result.exit_code, "--resume needs an --out" in result.stderr) == (2, True)


def test_a_run_does_not_go_on_in_the_file_of_another_run(
    tiny_model: Path,
    tiny_card: ModelCard,
    tiny_graph: onnx.ModelProto,
    pack_model: Callable[[onnx.ModelProto, str], bytes],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(pack_model(tiny_graph, replace(tiny_card, labels=("red", "green", "mauve")).to_json()))
    monkeypatch.chdir(photos.parent)
    for layout in ("csv", "jsonl"):
        out = tmp_path / f"rows.{layout}"
        assert predict(tiny_model, photos.name, "--out", out).exit_code == 0
        rows = out.read_bytes()
        line = 2 if layout == "csv" else 1
        for model, arguments, message in (
            (tiny_model, (photos.name, "--threshold", 0), "is of another --threshold, for 0.333333 is sure at 0"),
            (tiny_model, (photos.name, "--threshold", 1), f"line {line} is of another --threshold"),
            (other, (photos.name,), f"line {line} is of another --model, for this one has no class blue"),
            (tiny_model, (f"./{photos.name}",), f"({photos.name}/blue.png there, ./{photos.name}/blue.png here)"),
            (tiny_model, (photos,), "none of its rows is of a photo of this run"),
            (tiny_model, ("-",), "none of its rows is of a photo of this run; name the photos as"),
        ):
            result = predict(model, *arguments, "--out", out, "--resume")
            assert result.exit_code == 2
            assert message in result.stderr
            assert result.stderr.startswith(f"Error: {out}: ")
            assert out.read_bytes() == rows


def test_a_run_does_not_go_on_with_another_model_of_the_same_classes(
    tiny_model: Path,
    tiny_card: ModelCard,
    tiny_graph: onnx.ModelProto,
    pack_model: Callable[[onnx.ModelProto, str], bytes],
    mixed: Path,
    photos: Path,
    tmp_path: Path,
) -> None:
    other, out = tmp_path / "other.onnx", tmp_path / "rows.csv"
    other.write_bytes(pack_model(tiny_graph, replace(tiny_card, labels=tiny_card.labels[::-1]).to_json()))
    shutil.copy(photos / "blue.png", mixed / "d.png")
    assert predict(tiny_model, mixed, "--out", out).exit_code == 1
    rows = out.read_bytes()
    result = predict(other, mixed, "--out", out, "--resume")
    assert result.exit_code == 2
    assert f"{out}: its rows are of another --model, or of photos that have changed ({mixed}" in result.stderr
    assert out.read_bytes() == rows
    shutil.copy(photos / "green.png", mixed / "a.png")
    assert predict(tiny_model, mixed, "--out", out, "--resume").exit_code == 1, "one photo may have changed"


@settings(deadline=None)  # a disk may be slow
@given(data=st.data(), layout=st.sampled_from(["csv", "jsonl"]))
def test_what_a_run_wrote_is_of_this_run(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, layout: Layout
) -> None:
    """Thresholds may lie on a probability or beside it by less than its last decimal."""
    first = data.draw(st.floats(0.5, 1, width=32))
    threshold = data.draw(st.sampled_from([first, round(first, 6), first + 2e-7, first - 2e-7]))
    rounded = np.round(np.array([first, 1 - first], np.float32).astype(np.float64), DECIMALS)
    prediction = Prediction(("a, b", '"c"'), tuple(rounded.tolist()), min(1, threshold))
    file = tmp_path_factory.getbasetemp() / f"one.{layout}"
    with file.open("w", encoding="utf-8", newline="") as stream:
        make_writer(layout, stream, prediction.labels, 2)(Row("photo", prediction))
    kept = read_kept(file, layout, 2, prediction.labels, prediction.threshold)
    assert kept.counts == {"sure" if prediction.sure else "unsure": 1}


def test_photos_that_could_not_be_read_are_tried_again(tiny_model: Path, mixed: Path, tmp_path: Path) -> None:
    (mixed / "d.png").write_bytes(b"")
    for layout in ("csv", "jsonl"):
        out, whole = tmp_path / f"rows.{layout}", tmp_path / f"whole.{layout}"
        assert predict(tiny_model, mixed, mixed / "b.jpg", "--out", out).exit_code == 1
        lost = (mixed / "b.jpg").read_bytes()
        (mixed / "b.jpg").write_bytes((mixed / "a.png").read_bytes())
        result = predict(tiny_model, mixed, mixed / "b.jpg", "--out", out, "--resume")
        assert (result.exit_code, "4 sure, 1 not sure" in result.stderr) == (1, False), "d.png is still broken"
        assert "5 photos: 3 sure, 1 not sure, 1 could not be read; 2 of them by an earlier run" in result.stderr
        predict(tiny_model, mixed, mixed / "b.jpg", "--out", whole)
        assert out.read_bytes() == whole.read_bytes()
        (mixed / "b.jpg").write_bytes(lost)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mixed", "rows.csv", "rows.jsonl", "whole.csv", "whole.jsonl"
    ]  # fmt: skip


def test_rows_of_photos_that_are_gone_stay_and_new_photos_get_their_place(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "rows.csv"
    shutil.copytree(photos, folder)
    assert predict(tiny_model, folder, "--out", out).exit_code == 0
    gone = out.read_text("utf-8").splitlines()[1]
    (folder / "blue.png").unlink()
    (folder / "cyan.png").write_bytes((photos / "green.png").read_bytes())
    result = predict(tiny_model, folder, "--out", out, "--resume")
    assert result.exit_code == 0
    assert "5 photos: 4 sure" in result.stderr
    assert "4 of them by an earlier run, 1 of which are of photos that this run does not name" in result.stderr
    rows = out.read_text("utf-8").splitlines()
    assert rows.pop() == gone
    assert "\n".join(rows) + "\n" == predict(tiny_model, folder, "--format", "csv").stdout


@posix
def test_a_resumed_run_that_is_killed_loses_nothing(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """By SIGKILL, twice, each time after some of what it tried again is written."""
    names = [tmp_path / f"{number}.png" for number in range(16 * GROUP)]
    for path in names[1::2]:
        path.write_bytes((photos / "red.png").read_bytes())
    out, whole, whole_list = tmp_path / "rows.csv", tmp_path / "whole.csv", "\n".join(map(str, names)).encode()

    def read_good() -> set[str]:
        return {row["path"] for row in rows_of(out.read_text("utf-8")) if not row["error"]}

    assert predict(tiny_model, "-", "--out", out, stdin=whole_list).exit_code == 1
    for path in names[::2]:
        path.write_bytes((photos / "green.png").read_bytes())
    good = read_good()
    assert len(good) == len(names) // 2
    for listed in (names[: 8 * GROUP], names[: 14 * GROUP]):
        process = start(tiny_model, "-", "--out", out, "--resume", "--threads", 1, stdin=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(b"".join(b"%s\n" % os.fsencode(path) for path in listed))
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while len(read_good()) < len(good) + GROUP and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()  # while it waits for further paths
        finish(process)
        assert good < read_good()
        good = read_good()
    assert good < set(map(str, names))
    assert predict(tiny_model, "-", "--out", out, "--resume", stdin=whole_list).exit_code == 0
    assert predict(tiny_model, "-", "--out", whole, stdin=whole_list).exit_code == 0
    assert out.read_bytes() == whole.read_bytes()


@posix
@pytest.mark.parametrize("writing", [1, 2])
def test_a_file_is_whole_while_it_is_written_anew(tiny_model: Path, mixed: Path, tmp_path: Path, writing: int) -> None:
    """Killed where the rows that stay are written alone (1), and where all are put in the photos' order (2)."""
    out, whole = tmp_path / "rows.csv", tmp_path / "whole.csv"
    assert predict(tiny_model, mixed, "--out", out).exit_code == 1
    before = out.read_bytes()
    (mixed / "b.jpg").write_bytes((mixed / "a.png").read_bytes())
    assert predict(tiny_model, mixed, "--out", whole).exit_code == 0
    killing = (
        "import os, itertools; calls = itertools.count(1);"
        f"os.fsync = lambda number: next(calls) == {writing} and os.kill(os.getpid(), 9);" + PROGRAM
    )
    words = [sys.executable, "-c", killing, "predict", "--model", tiny_model, mixed, "--out", out, "--resume"]
    assert subprocess.run(list(map(str, words)), capture_output=True, timeout=120).returncode == -signal.SIGKILL
    if writing == 1:
        assert out.read_bytes() == before
    else:
        assert sorted(out.read_bytes().splitlines()) == sorted(whole.read_bytes().splitlines())
    assert predict(tiny_model, mixed, "--out", out, "--resume").exit_code == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "rows.csv.partial").exists()


@posix
def test_a_file_that_is_written_anew_keeps_mode_and_links(tiny_model: Path, mixed: Path, tmp_path: Path) -> None:
    out, link = tmp_path / "rows.csv", tmp_path / "link.csv"
    assert predict(tiny_model, mixed, "--out", out).exit_code == 1
    out.chmod(0o640)
    link.symlink_to(out)
    (mixed / "b.jpg").write_bytes((mixed / "a.png").read_bytes())
    assert predict(tiny_model, mixed, "--out", link, "--resume").exit_code == 0
    assert link.is_symlink()
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert [row["error"] for row in rows_of(out.read_text("utf-8"))] == ["", "", ""]


@pytest.mark.parametrize("name", ["p0.jpg", "new.PNG"])
def test_rows_are_not_written_to_a_picture(tiny_model: Path, photos: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "p0.jpg").write_bytes(b"a photo")
    result = predict(tiny_model, tmp_path, "--format", "csv", "--out", tmp_path / name)
    assert result.exit_code == 2
    assert f"{name}: is --out and named like a picture" in result.stderr
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("p0.jpg", b"a photo")]


def test_the_output_does_not_replace_the_input(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    photo, listed = tmp_path / "red", tmp_path / "list.csv"
    photo.write_bytes((photos / "red.png").read_bytes())
    listed.write_text(f"{photo}\n", "utf-8")
    before = photo.read_bytes()
    result = predict(tiny_model, photos, photo, "--out", photo, "--format", "csv")
    assert (result.exit_code, "is --out and what is to be read" in result.stderr) == (2, True)
    with listed.open("rb") as stream:
        code, _, err = finish(start(tiny_model, "-", "--out", listed, stdin=stream))
    assert (code, b"is --out and what is to be read" in err) == (2, True)
    assert (photo.read_bytes(), listed.read_text("utf-8")) == (before, f"{photo}\n")


def test_lists_of_windows_are_read_or_refused(tiny_model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(photos / "red.png")
    marked = predict(tiny_model, "-", "--format", "csv", stdin=path.encode("utf-8-sig"))
    assert [(row["path"], row["label"]) for row in rows_of(marked.stdout)] == [(path, "red")]
    refused = predict(tiny_model, "-", stdin=path.encode("utf-16"))
    assert (refused.exit_code, "is in UTF-16; give it in UTF-8" in refused.stderr) == (2, True)
    monkeypatch.setattr(os, "fsdecode", lambda name: str(name, "utf-8", "surrogatepass") if name[:0] == b"" else name)
    mixed = predict(tiny_model, "-", "--format", "csv", stdin=b"caf\x82.png\n" + path.encode())
    assert mixed.exit_code == 1
    assert [(row["path"], row["error"]) for row in rows_of(mixed.stdout)] == [
        ("caf\N{REPLACEMENT CHARACTER}.png", "does not exist"),
        (path, ""),
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(tiny_model: Path, photos: Path) -> None:
    with open("/dev/full", "wb") as full:
        for options, layout in (({"stdout": full}, "csv"), ({}, "csv"), ({}, "table")):
            out = () if options else ("--out", "/dev/full")
            code, _, err = finish(start(tiny_model, photos, "--format", layout, *out, **options))
            assert code == 2
            assert err.startswith(b"Error: ")
            assert (b"(No space left on device)" if out else b"Error: no space left on device") in err
            assert (b"/dev/full: cannot be written" in err) == bool(out)
            assert (b"--resume" in err) == (out != () and layout == "csv")
            assert err.count(b"\n") == 1


@posix
def test_a_place_that_cannot_be_written_is_one_line(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").symlink_to("nowhere/rows.csv")
    code, out, err = finish(start(tiny_model, photos, "--out", tmp_path / "rows.csv"))
    reason = "cannot be written (No such file or directory); choose another --out"
    assert (code, out, err.decode()) == (2, b"", f"Error: {tmp_path / 'rows.csv'}: {reason}\n")
    long = tmp_path / f"{'x' * 300}.csv"
    code, out, err = finish(start(tiny_model, photos, "--out", long))
    assert (code, out) == (2, b"")
    assert err.decode().startswith(f"Error: {long}: ")
    assert "Errno" not in err.decode()


@posix
def test_a_terminal_sees_how_far_it_is(tiny_model: Path, photos: Path) -> None:
    import pty

    reader, terminal = pty.openpty()
    code, out, _ = finish(start(tiny_model, photos, "--format", "csv", stderr=terminal))
    os.close(terminal)
    shown = os.read(reader, 100_000).decode()
    os.close(reader)
    assert code == 0
    assert out.count(b"\n") == 5
    assert "4/4" in shown
    assert shown.endswith("4 photos: 3 sure, 1 not sure, 0 could not be read\r\n")


@posix
def test_a_terminal_counts_only_what_is_left(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    import pty

    folder, out = tmp_path / "photos", tmp_path / "rows.csv"
    shutil.copytree(photos, folder)
    assert predict(tiny_model, folder, photos / "red.png", "--out", out).exit_code == 0
    shutil.rmtree(folder)
    reader, terminal = pty.openpty()
    words = (photos / "red.png", photos / "green.png", "--out", out, "--resume")
    code, _, _ = finish(start(tiny_model, *words, stderr=terminal))
    os.close(terminal)
    shown = os.read(reader, 100_000).decode()
    os.close(reader)
    assert code == 0
    assert "1/1" in shown
    assert "/-" not in shown


@pytest.mark.parametrize("option", ["--threshold", "--max-megapixels"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_are_none_are_refused(option: str, value: str, tiny_model: Path) -> None:
    words = [sys.executable, "-m", "clothing_classifier", "predict", "--model", str(tiny_model), option, value, "x.jpg"]
    failed = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr


def test_an_empty_or_missing_argument_is_a_row_beside_the_others(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    result = predict(tiny_model, empty, tmp_path / "gone", photos, "--format", "csv")
    assert result.exit_code == 1
    errors = {row["path"]: row["error"] for row in rows_of(result.stdout) if row["error"]}
    assert errors == {str(empty): "is a folder without photos", str(tmp_path / "gone"): "does not exist"}
    assert len(rows_of(result.stdout)) == len(COLOURS) + 2


def test_rows_stay_where_the_photos_are_gone(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    assert predict(tiny_model, photos, "--out", out).exit_code == 0
    before = out.read_bytes()
    for options in ((), ("--resume",)):
        result = predict(tiny_model, tmp_path / "drive", "--out", out, *options)
        assert (result.exit_code, result.stderr) == (2, f"Error: {tmp_path / 'drive'}: does not exist\n")
    assert out.read_bytes() == before


def test_one_photo_is_no_plural(tiny_model: Path, photos: Path) -> None:
    assert predict(tiny_model, photos / "red.png").stderr == "1 photo: 1 sure, 0 not sure, 0 could not be read\n"


@posix
def test_what_is_passed_over_is_said(tiny_model: Path, mixed: Path) -> None:
    assert "Passed over" not in predict(tiny_model, mixed).stderr
    (mixed / "photo.jpg_large").touch()
    assert predict(tiny_model, mixed).stderr.splitlines()[-1] == "Passed over: 1 file without a picture's suffix"
    (mixed / "notes.txt").touch()
    assert predict(tiny_model, mixed).stderr.splitlines()[-1] == "Passed over: 2 files without a picture's suffix"
    for count, told in ((1, "1 linked folder"), (2, "2 linked folders")):
        (mixed / f"link {count}").symlink_to(mixed)
        last = predict(tiny_model, mixed).stderr.splitlines()[-1]
        assert last == f"Passed over: 2 files without a picture's suffix and {told}"


@posix
@pytest.mark.parametrize("name", ["red.png", "two\nlines.png", "x" * 200 + ".png"])
def test_a_list_with_zero_bytes_is_read(tiny_model: Path, photos: Path, tmp_path: Path, name: str) -> None:
    paths = [str(tmp_path / "first.png"), str(tmp_path / name)] * 200
    for path in paths[:2]:
        Path(path).write_bytes((photos / "red.png").read_bytes())
    result = predict(tiny_model, "-", "--format", "jsonl", stdin="".join(f"{path}\0" for path in paths).encode())
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == paths
