from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click.testing
import numpy as np
import pytest
from PIL import Image

from clothing_classifier.cli import main
from clothing_classifier.dataset import Manifest, check_dataset, read_manifest

ROWS = "image,sender_id,label,kids\na,1,Dress,False\nb,1,Hat,True\nc,2,Hat,\nd,2,Skip,\ne,3,Sofa,\ngone,3,Skip,\n"


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def github(tmp_path: Path) -> Path:
    root = tmp_path / "github"
    for seed, name in enumerate("abcdef"):
        draw(root / "images" / f"{name}.jpg", seed)
    (root / "images" / "bad.jpg").write_bytes(b"")
    (root / "images" / "notes.txt").write_text("notes")
    (root / "images.csv").write_text(ROWS)
    return root


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["data", *map(str, arguments)])


def test_a_report_for_people(github: Path) -> None:
    result = run("check", github)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"Folder    {github}",
        "Edition   GitHub",
        "Photos    7",
        "Rows      6; 2 photos have no row, 1 row has no photo",
        "Used      3 photos of 2 classes",
        f"Digest    {check_dataset(github).manifest.digest}",
        "",
        "class  photos  share",
        "Hat         2  66.7%",
        "Dress       1  33.3%",
        "",
        "dropped because of    photos",
        "unreadable                 1",
        "label Skip                 1",
        "unknown label              1",
        "no row in images.csv       1",
        "",
        "Unreadable: 1",
        "  images/bad.jpg: is empty",
        "",
        "Rows without a photo: 1",
        "  gone",
        "",
        "No photos by their names, and ignored: 1",
        "  images/notes.txt",
        "",
        "2 senders, of whom the largest  photos  share  share so far",
        "1                                    2  66.7%         66.7%",
        "2                                    1  33.3%        100.0%",
        "",
        "Classes of one sender, which folds by sender cannot judge: 1",
        "  Dress",
    ]
    assert result.stderr == "The manifest is manifest.csv.\n"


def test_a_report_for_programs(github: Path) -> None:
    result = run("check", github, "--format", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == check_dataset(github).to_dict()


def test_parts_have_columns_of_their_own(tmp_path: Path) -> None:
    for seed, name in enumerate(("train/hat/1", "train/hat/2", "train/dress/3", "test/hat/4", "validation/dress/5")):
        draw(tmp_path / "subset" / f"{name}.png", seed)
    lines = run("check", tmp_path / "subset").stdout.splitlines()
    assert lines[1] == "Edition   ten-class subset"
    table = lines.index("class  photos  share  train  validation  test")
    assert lines[table + 1].split() == ["Hat", "3", "60.0%", "2", "0", "1"]
    assert lines[table + 2].split() == ["Dress", "2", "40.0%", "1", "1", "0"]
    assert lines[-1] == "Nothing says who sent which photo."


def test_a_long_list_is_cut_for_people_only(github: Path) -> None:
    for number in range(12):
        (github / "images" / f"bad{number:02}.jpg").write_bytes(b"")
    lines = run("check", github).stdout.splitlines()
    start = lines.index("Unreadable: 13")
    assert lines[start + 6] == "  and 8 more; --format json names them all"
    assert len(json.loads(run("check", github, "--format", "json").stdout)["unreadable"]) == 13


def test_the_manifest_holds_what_was_found(github: Path, here: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in github.rglob("*"))
    run("check", github)
    found = check_dataset(github).manifest
    assert read_manifest(here / "manifest.csv") == replace(found, root=here)
    assert sorted(path.name for path in github.rglob("*")) == before, "nothing is written into the dataset"
    run("check", github, "--manifest", tmp_path / "other.csv")
    assert (tmp_path / "other.csv").read_bytes() == (here / "manifest.csv").read_bytes()


def test_a_file_of_the_users_own_is_not_replaced_by_the_default(github: Path, here: Path) -> None:
    (here / "manifest.csv").write_text("cargo,weight\nhats,7\n")
    result = run("check", github)
    assert result.exit_code == 2
    assert "is there and is no manifest; name another file by --manifest" in result.stderr
    assert (here / "manifest.csv").read_text() == "cargo,weight\nhats,7\n"
    assert run("check", github, "--manifest", here / "manifest.csv").exit_code == 0, "it was named"
    assert run("check", github).exit_code == 0, "an old manifest is replaced"


def test_a_manifest_that_cannot_be_written_is_told_before_photos_are_opened(
    github: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "none" / "manifest.csv"
    result = run("check", github, "--manifest", manifest)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: {manifest}: cannot be written (No such file or directory); name another place by --manifest\n"
    )

    def fill(self: Manifest, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Manifest, "write", fill)
    result = run("check", github, "--manifest", tmp_path / "full.csv")
    assert (result.exit_code, "Used      3 photos" in result.stdout) == (2, True), "the report is there all the same"
    assert f"{tmp_path / 'full.csv'}: cannot be written (No space left on device); name another" in result.stderr


def test_the_size_of_kaggles_photos_may_be_chosen(github: Path) -> None:
    (github / "images").rename(github / "images_compressed")
    draw(github / "images_original" / "a.jpg", 0)
    draw(github / "images_original" / "b.jpg", 1)
    for options, photos in (((), 7), (("--photos", "compressed"), 7), (("--photos", "original"), 2)):
        figures = json.loads(run("check", github, "--format", "json", *options).stdout)
        assert figures["photos"] == photos
    refused = run("check", github, "--photos", github)
    assert refused.exit_code == 2
    assert f"--photos {github}: of a dataset's folder, the photos are compressed or original" in refused.stderr


def test_a_table_is_checked_as_it_will_be_learned_from(github: Path, here: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label,sender\na.jpg,Kilt,1\nb.jpg,Sari,1\nbad.jpg,Sari,2\ngone.jpg,Kilt,2\nc.jpg,,2\n")
    result = run("check", table, "--photos", github / "images")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[:5] == [
        f"Folder    {github / 'images'}",
        "Edition   table",
        "Photos    5",
        "Rows      5; 0 photos have no row, 0 rows have no photo",
        "Used      2 photos of 2 classes",
    ]
    assert "  bad.jpg: is empty\n  gone.jpg: does not exist\n" in result.stdout
    manifest = read_manifest(here / "manifest.csv")
    assert [photo.path for photo in manifest.kept] == ["a.jpg", "b.jpg"]

    # A manifest is a table, too, and is not written over while it is read.
    (github / "images" / "manifest.csv").write_bytes((here / "manifest.csv").read_bytes())
    before = (github / "images" / "manifest.csv").read_bytes()
    result = run("check", github / "images" / "manifest.csv", "--manifest", github / "images" / "manifest.csv")
    assert (result.exit_code, "is to be checked; name another file by --manifest" in result.stderr) == (2, True)
    assert (github / "images" / "manifest.csv").read_bytes() == before
    result = run("check", github / "images" / "manifest.csv")
    assert (result.exit_code, "Used      2 photos of 2 classes" in result.stdout) == (0, True), result.stderr

    nowhere = run("check", table, "--photos", tmp_path)
    assert (nowhere.exit_code, nowhere.stdout) == (1, "")
    assert f"labels.csv: none of its photos, such as a.jpg, is in {tmp_path}; say by --photos" in nowhere.stderr


def test_a_dataset_that_cannot_be_used_is_code_1_after_its_report(github: Path, here: Path) -> None:
    (github / "images.csv").write_text(ROWS.replace("Dress", "Hat"))
    result = run("check", github)
    assert result.exit_code == 1
    assert "Used      3 photos of 1 class\n" in result.stdout
    assert result.stderr.splitlines()[-1].endswith("there is only one class, Hat; a classifier needs two or more")
    assert (here / "manifest.csv").exists()
    (github / "images.csv").write_text("image,label\na,Sofa\n")
    result = run("check", github)
    assert result.exit_code == 1
    assert "Used      0 photos of 0 classes\n" in result.stdout
    assert "none of the 7 photos can be used" in result.stderr


def test_what_is_no_dataset_is_code_1(tmp_path: Path, here: Path) -> None:
    for folder, message in ((tmp_path / "none", "there is no such folder"), (here, "the folder is empty")):
        result = run("check", folder)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: {folder}: {message}")
        assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check",), "Missing argument"),
        (("check", ".", "--format", "xml"), "--format"),
        (("fetch", "gitlab", "x"), "gitlab"),
        (("fetch", "github"), "Missing argument"),
        (("fetch", "kaggle", "x", "--url", "https://example.org/a.zip"), "--url goes with github only"),
    ],
)
def test_wrong_usage_is_code_2(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_an_address_that_is_not_safe_is_code_1(here: Path) -> None:
    result = run("fetch", "github", "x", "--url", "http://example.org/a.zip")
    assert result.exit_code == 1
    assert "use https" in result.stderr
    assert list(here.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="other systems forbid such names")
def test_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    draw(tmp_path / "data" / "h\x1b[2Jat" / "1.png", 0)
    draw(tmp_path / "data" / "größe" / "2.png", 1)
    (tmp_path / "data" / "größe" / "new\nline.jpg").touch()
    (tmp_path / "data" / "größe" / os.fsdecode(b"\xff.jpg")).touch()
    command = [sys.executable, "-m", "clothing_classifier", "data", "check", str(tmp_path / "data")]
    for environment in ({"PYTHONUTF8": "1"}, {"PYTHONIOENCODING": "ascii"}):
        for options in ((), ("--format", "json")):
            done = subprocess.run(
                [*command, *options], capture_output=True, env={**os.environ, **environment}, timeout=60
            )
            told, error = done.stderr.splitlines()
            assert told == b"The manifest is manifest.csv."
            assert error.endswith(rb"the class 'h\x1b[2Jat' has a name that cannot be shown; rename its folder")
            assert done.returncode == 1
            assert b"\x1b" not in done.stdout + done.stderr
            if environment.get("PYTHONIOENCODING"):
                assert done.stdout.isascii()
    assert len(read_manifest(Path("manifest.csv")).photos) == 4


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal")
def test_a_terminal_sees_how_far_it_is(github: Path) -> None:
    import pty

    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "clothing_classifier", "data", "check", str(github)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=terminal, timeout=60, check=True)
    os.close(terminal)
    shown = os.read(reader, 100_000).decode()
    os.close(reader)
    assert "Opening the photos  7 of 7\r\n" in shown


def test_the_help_names_every_column_and_exit_code() -> None:
    text = " ".join(run("check", "--help").stdout.split())
    assert "path, label, sender, kids, part, sha256, width, height, dropped" in text
    for command in ("check", "fetch"):
        text = " ".join(run(command, "--help").stdout.split())
        assert all(f" {code}, " in text for code in (0, 1, 2, 130))
