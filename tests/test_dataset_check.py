from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clothing_classifier.classifier import NOT_SURE
from clothing_classifier.dataset import DatasetError, Findings, Manifest, check_dataset, read_dataset
from clothing_classifier.dataset.labels import LABEL_COLUMNS, PHOTO_COLUMNS, RESERVED, read_labels
from clothing_classifier.images import Limits
from clothing_classifier.taxonomy import canonical_label

HEADER = "image,sender_id,label,kids\n"


def draw(path: Path, seed: int, width: int = 24, height: int = 16, orientation: int = 1) -> bytes:
    """Write a JPEG of noise; the same seed gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", exif=exif)
    return path.read_bytes()


def lay_github(root: Path, rows: str, *names: str) -> Path:
    """Write GitHub's edition; names that agree up to a digit at their end have the same content."""
    for name in names:
        draw(root / "images" / f"{name}.jpg", seed=sum(name.rstrip("0123456789").encode()))
    (root / "images.csv").write_text(HEADER + rows)
    return root


def dropped(findings: Findings) -> dict[str, str]:
    return {photo.path: photo.dropped for photo in findings.manifest.photos if photo.dropped}


@pytest.fixture
def github(tmp_path: Path) -> Path:
    return lay_github(tmp_path / "data", "a,1,Dress,False\nb,1,Hat,True\nc,2,Hat,False\n", "a", "b", "c")


def test_a_photo_is_told_as_it_is(tmp_path: Path) -> None:
    root = lay_github(tmp_path, "a,1,Dress,False\nb,1,Hat,True\n", "a")
    content = draw(root / "images" / "b.jpg", seed=9, width=30, height=20, orientation=6)
    photo = read_dataset(root).photos[1]
    assert (photo.path, photo.label, photo.sender, photo.kids, photo.part) == ("images/b.jpg", "Hat", "1", True, None)
    assert (photo.width, photo.height) == (20, 30), "the picture is turned upright"
    assert photo.sha256 == hashlib.sha256(content).hexdigest()


def test_unreadable_files_are_dropped_with_their_reasons(github: Path) -> None:
    content = (github / "images" / "a.jpg").read_bytes()
    for name, bad in (("cut", content[: len(content) // 2]), ("none", b""), ("page", b"<html>404</html>")):
        (github / "images" / f"{name}.jpg").write_bytes(bad)
    (github / "images" / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(9000))
    if os.name == "posix":
        (github / "images" / "link.jpg").symlink_to("nowhere.jpg")
    findings = check_dataset(github, limits=Limits(max_bytes=8192))
    reasons = dropped(findings)
    assert [photo.path for photo in findings.manifest.kept] == [f"images/{name}.jpg" for name in "abc"]
    assert all(reason.startswith("unreadable: ") for reason in reasons.values())
    assert {photo.path for photo in findings.unreadable} == reasons.keys()
    assert "is empty" in reasons["images/none.jpg"]
    assert findings.to_dict()["unreadable"]["images/none.jpg"] == "is empty"
    assert findings.to_dict()["photos_without_row"] == len(reasons), "an unreadable file may have no row as well"
    cut = next(photo for photo in findings.manifest.photos if photo.path == "images/cut.jpg")
    assert cut.sha256 == hashlib.sha256(content[: len(content) // 2]).hexdigest()


def test_of_copies_with_one_label_the_first_stays(tmp_path: Path) -> None:
    rows = "a1,1,Dress,\na2,2,Dress,\na3,1,Skip,\nb1,1,Hat,\n"
    findings = check_dataset(lay_github(tmp_path, rows, "a1", "a2", "a3", "a4", "b1"))
    assert [photo.path for photo in findings.manifest.kept] == ["images/a1.jpg", "images/b1.jpg"]
    assert dropped(findings) == {
        "images/a2.jpg": "exact copy: of images/a1.jpg",
        "images/a3.jpg": "label Skip: the photo is not usable",
        "images/a4.jpg": "no row in images.csv",
    }
    assert findings.to_dict()["exact_copies"] == [[f"images/a{n}.jpg" for n in (1, 2, 3, 4)]]


def test_copies_whose_labels_contradict_are_all_dropped(tmp_path: Path) -> None:
    rows = "a1,1,Dress,\na2,2,Skirt,\na3,2,Skirt,\na4,2,Skirt,\nb1,1,Hat,\nc1,1,Dress,\n"
    findings = check_dataset(lay_github(tmp_path, rows, "a1", "a2", "a3", "a4", "b1", "c1"))
    assert [photo.path for photo in findings.manifest.kept] == ["images/b1.jpg", "images/c1.jpg"]
    assert set(dropped(findings).values()) == {
        "contradictory copies: images/a1.jpg (Dress), images/a2.jpg (Skirt), images/a3.jpg (Skirt), and 1 more"
    }


def test_of_copies_across_parts_that_of_the_test_part_stays(tmp_path: Path) -> None:
    for seed, names in enumerate(
        (
            ("train/hat/a", "test/hat/z"),
            ("validation/hat/b", "train/hat/y"),
            ("train/dress/b", "test/hat/x"),
            ("test/dress/c",),
        )
    ):
        for name in names:
            draw(tmp_path / f"{name}.jpg", seed)
    findings = check_dataset(tmp_path)
    contradiction = "contradictory copies: test/hat/x.jpg (Hat), train/dress/b.jpg (Dress)"
    assert dropped(findings) == {
        "test/hat/x.jpg": contradiction,
        "train/dress/b.jpg": contradiction,
        "train/hat/a.jpg": "exact copy: of test/hat/z.jpg (the test part goes before the train part)",
        "train/hat/y.jpg": "exact copy: of validation/hat/b.jpg (the validation part goes before the train part)",
    }
    assert findings.to_dict()["parts"] == {
        "validation": {"Dress": 0, "Hat": 1},
        "test": {"Dress": 1, "Hat": 1},
    }


def test_the_result_does_not_depend_on_where_the_data_lie_or_on_threads(github: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(github, tmp_path / "archive" / "clothing-dataset-master")
    first, second = (check_dataset(root, workers=workers).manifest for root, workers in ((github, 1), (copy.parent, 4)))
    assert second.root == copy
    assert first.photos == second.photos
    assert first.digest == second.digest


def test_progress_counts_every_photo(github: Path) -> None:
    told: list[tuple[int, int]] = []
    check_dataset(github, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_it_stops_at_once_when_it_is_told_to(tmp_path: Path) -> None:
    for number in range(40):
        draw(tmp_path / "ab"[number % 2] / f"{number}.jpg", number)
    told = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_dataset(tmp_path, progress=stop, workers=1)
    assert told == [1]


def test_the_largest_senders_are_told(tmp_path: Path) -> None:
    names = [f"n{chr(ord('a') + n)}" for n in range(16)]
    senders = [["9", "9", "9", "9", "5", "5", "", "6", "6", "x1"][n] if n < 10 else f"y{n}" for n in range(16)]
    rows = "".join(
        f"{name},{sender},{'Hat' if n % 2 else 'Dress'},\n"
        for n, (name, sender) in enumerate(zip(names, senders, strict=True))
    )
    found = check_dataset(lay_github(tmp_path, rows, *names)).to_dict()["senders"]
    assert (found["senders"], found["photos_without_sender"]) == (10, 1)
    assert found["largest"][:3] == [
        {"sender": "9", "photos": 4, "share": 0.25, "share_so_far": 0.25},
        {"sender": "5", "photos": 2, "share": 0.125, "share_so_far": 0.375},
        {"sender": "6", "photos": 2, "share": 0.125, "share_so_far": 0.5},
    ]
    assert len(found["largest"]) == 10


def test_one_class_is_too_few_and_said(github: Path) -> None:
    (github / "images.csv").write_text(f"{HEADER}a,1,Hat,\nb,1,Hat,\nc,1,Sofa,\n")
    with pytest.raises(DatasetError, match="there is only one class, Hat; a classifier needs two or more"):
        read_dataset(github)
    assert check_dataset(github).to_dict()["classes"] == {"Hat": 2}


@pytest.mark.skipif(os.name != "posix", reason="other systems forbid such names")
@pytest.mark.parametrize("name", ["tee\u200b", "tee\n", " ", "\u200d"])
def test_a_class_whose_name_cannot_be_shown_is_refused_before_anything_learns(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "hat" / "1.jpg", 0)
    draw(tmp_path / name / "2.jpg", 1)
    assert check_dataset(tmp_path).manifest.classes == tuple(sorted(("hat", name)))
    with pytest.raises(DatasetError, match="has a name that cannot be shown; rename its folder") as error:
        read_dataset(tmp_path)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", ["نیم\u200cتنه", "👩\u200d🎤", "zori\u00a0x"])
def test_a_class_of_any_script_is_taken(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "hat" / "1.jpg", 0)
    draw(tmp_path / name / "2.jpg", 1)
    assert read_dataset(tmp_path).classes == tuple(sorted(("hat", name)))


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Truth", "ANSWER"])
def test_a_class_is_not_called_like_a_column(tmp_path: Path, name: str) -> None:
    """Else a run's own predictions.csv could not be read as a table of labels."""
    draw(tmp_path / "hat" / "1.jpg", 0)
    draw(tmp_path / name / "2.jpg", 1)
    with pytest.raises(DatasetError, match=f"the class {name} is called like a column of results; rename its folder"):
        read_dataset(tmp_path)


def test_what_a_run_writes_into_its_table_is_reserved() -> None:
    assert {*PHOTO_COLUMNS, *LABEL_COLUMNS, "sender", "part", "fold", "group", "taught", "predicted"} <= RESERVED


@pytest.mark.parametrize(
    ("label", "bad", "reason"),
    [
        ("te\u200be", "", r"has a name that cannot be shown; give it another name in the table"),
        ("truth", "", "the class truth is called like a column of results; give it another name in the table"),
        (
            "tee",
            "b.jpg",
            r"no photo can be used of tee \(`clothing data check` says why\); add photos, or take their rows away",
        ),
    ],
)
def test_of_a_table_no_folder_is_blamed(tmp_path: Path, label: str, bad: str, reason: str) -> None:
    for number, name in enumerate(("a", "b", "c")):
        draw(tmp_path / f"{name}.jpg", number)
    if bad:
        (tmp_path / bad).write_bytes(b"no picture")
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\na.jpg,hat\nb.jpg,{label}\nc.jpg,kilt\n", "utf-8")
    with pytest.raises(DatasetError, match=reason):
        check_dataset(read_labels(table)).require_classes()


@pytest.mark.parametrize("name", ["not sure", "Not Sure", "not_sure"])
def test_what_a_model_says_when_it_is_not_sure_is_no_class(tmp_path: Path, name: str) -> None:
    assert canonical_label(NOT_SURE) == "Not sure"
    root = lay_classes(tmp_path, hat=2, kilt=2, **{name: 2})
    (root / name / "broken.jpg").write_bytes(b"no picture")
    findings = check_dataset(root)
    findings.require_classes()
    assert findings.manifest.classes == ("hat", "kilt")
    reasons = dropped(findings)
    assert reasons.pop(f"{name}/broken.jpg").startswith("unreadable: ")
    assert [*reasons.values()] == 2 * ["label not sure: it is what a model answers when it is not sure"]
    for photo in (root / name).iterdir():
        photo.unlink()
    check_dataset(root).require_classes()


def test_no_usable_photo_is_said_with_the_reasons(github: Path) -> None:
    (github / "images.csv").write_text(f"{HEADER}a,1,Sofa,\nb,1,Chair,\n")
    message = r"none of the 3 photos can be used: unknown label \(2\), no row in images.csv \(1\)"
    with pytest.raises(DatasetError, match=message):
        read_dataset(github)


def test_the_figures_are_json(github: Path) -> None:
    figures = json.loads(json.dumps(check_dataset(github).to_dict()))
    assert figures["classes"] == {"Dress": 1, "Hat": 2}
    assert figures["digest"] == read_dataset(github).digest
    assert sum(figures["dropped"].values()) == figures["photos"] - figures["kept"]


def test_the_dataset_that_is_shared(shared_findings: Findings, shared_manifest: Manifest) -> None:
    figures = shared_findings.to_dict()
    assert figures["edition"] == "GitHub"
    assert (figures["photos"], figures["rows"], figures["photos_without_row"]) == (5097, 4744, 358)
    assert len(figures["rows_without_photo"]) == 5
    assert figures["unreadable"] == {}
    assert figures["dropped"] == {
        "no row in images.csv": 358,
        "label Not sure": 188,
        "label Other": 54,
        "label Skip": 7,
    }
    assert (figures["kept"], len(figures["classes"])) == (4490, 17)
    assert [len(group) for group in figures["exact_copies"]] == [2]
    assert figures["senders"]["senders"] == 297
    assert figures["senders"]["largest"][7]["share_so_far"] == pytest.approx(0.5013)
    assert shared_manifest.digest == "a14e1129e5f7276e1fb2c0fec858ab05c1c6ec9fd1b5b116dba4dbd3f5c3c887"


def lay_classes(root: Path, **classes: int) -> Path:
    for number, (name, photos) in enumerate(classes.items()):
        for photo in range(photos):
            draw(root / name / f"{name}{photo}.jpg", seed=100 * number + photo)
    return root


@pytest.mark.parametrize("what", ["copies", "unreadable", "empty"])
def test_a_class_of_which_nothing_can_be_used_is_named(tmp_path: Path, what: str) -> None:
    root = lay_classes(tmp_path / "data", hat=3, shoes=3, kilt=3)
    lost = ["kilt"]
    if what == "copies":
        shutil.copytree(root / "kilt", root / "skirt")
        lost = ["kilt", "skirt"]
    elif what == "unreadable":
        for photo in (root / "kilt").iterdir():
            photo.write_bytes(photo.read_bytes()[:100])
    else:
        (root / "sari").mkdir()
        lost = ["sari"]
    assert list(check_dataset(root).lost) == lost
    with pytest.raises(DatasetError, match=f"no photo can be used of {', '.join(lost)} .*add photos, or take"):
        read_dataset(root)


def test_labels_that_are_dropped_anyway_are_not_lost(github: Path) -> None:
    (github / "images" / "d.jpg").write_bytes(b"")
    with (github / "images.csv").open("a") as file:
        file.write("d,2,Skip,False\n")
    assert check_dataset(github).lost == ()


def test_a_class_that_is_called_like_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the class fold is called like a column of results; rename its folder"):
        read_dataset(lay_classes(tmp_path / "data", hat=3, fold=3))


def test_labels_of_ones_own_in_a_published_table_are_named_with_the_way_out(tmp_path: Path) -> None:
    root = lay_github(tmp_path, "a,1,kilt,\nb,1,sari,\n", "a", "b")
    with pytest.raises(DatasetError, match=r"unknown label \(2\), such as kilt, sari; .*give `clothing train`"):
        read_dataset(root)


def test_a_limit_that_cannot_be_raised_here_is_not_offered(tmp_path: Path) -> None:
    root = lay_classes(tmp_path / "data", hat=1, shoes=1)
    findings = check_dataset(root, limits=Limits(max_pixels=100))
    assert {photo.dropped[-15:] for photo in findings.manifest.photos} == {"make it smaller"}
