from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clothing_classifier
from clothing_classifier.dataset import DatasetError, Manifest, Photo
from clothing_classifier.dataset.editions import Listing
from clothing_classifier.dataset.labels import LABEL_COLUMNS, PHOTO_COLUMNS, read_labels
from clothing_classifier.taxonomy import fold_label


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photo ``a.jpg``, as far as its name goes."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "a.jpg").touch()
    return folder


def read(folder: Path, table: str | bytes) -> Listing:
    path = folder / "table.csv"
    path.write_bytes(table if isinstance(table, bytes) else table.encode("utf-8", "surrogateescape"))
    return read_labels(path)


def labels(listing: Listing) -> dict[str, str | None]:
    return {photo.path: photo.label for photo in listing.photos}


def test_a_row_is_a_photo_and_its_label(folder: Path) -> None:
    listing = read(folder, "Path,note,LABEL\na.jpg,x,Dress\n\nb c.jpg,,tee \n")
    assert labels(listing) == {"a.jpg": "Dress", "b c.jpg": "tee"}
    assert (listing.root, listing.edition, listing.rows, listing.guessed) == (folder, "table", 2, 0)


@pytest.mark.parametrize("photo", PHOTO_COLUMNS)
@pytest.mark.parametrize("label", LABEL_COLUMNS)
def test_columns_go_by_many_names(folder: Path, photo: str, label: str) -> None:
    assert labels(read(folder, f"{label},{photo}\nHat,a.jpg\n")) == {"a.jpg": "Hat"}


def test_what_is_true_goes_before_what_was_said(folder: Path) -> None:
    assert labels(read(folder, "name,path,label,truth\nx,a.jpg,Hat,Dress\n")) == {"a.jpg": "Dress"}
    assert labels(read(folder, "path,predicted,label,answer\na.jpg,Hat,Hat,Dress\n")) == {"a.jpg": "Dress"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_spreadsheets_write_what_their_country_writes(folder: Path, delimiter: str, mark: str, end: str) -> None:
    table = end.join(f"{a}{delimiter}{b}" for a, b in (("file", "class"), ("a.jpg", "Röcke"))) + end
    for first in ("", f"sep={delimiter}{end}", f'"sep={delimiter}"{end}'):
        assert labels(read(folder, mark + first + table)) == {"a.jpg": "Röcke"}


def test_a_photo_counts_once_and_contradictions_not_at_all(folder: Path) -> None:
    rows = "a.jpg,T-Shirt\nb.jpg,Hat\na.jpg,tshirt\nb.jpg,Dress\nb.jpg,Hat\nc.jpg,\n,Hat\n"
    listing = read(folder, "path,label\n" + rows)
    assert labels(listing) == {"a.jpg": "T-Shirt", "b.jpg": None, "c.jpg": None}
    assert [p.dropped for p in listing.photos] == ["", "contradictory rows: Hat and Dress", "no label"]
    assert (listing.repeated, listing.missing) == (1, ("(no name, line 8)",))


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ("Röcke", "Ro\u0308cke"),
        ("Zori x", "Zori  x"),
        ("Zori x", "zori\u00a0x"),
        ("kilt", "Kilt"),
        ("Tie", "T\u200die"),
    ],
)
def test_spellings_of_one_label_are_the_most_frequent_one(folder: Path, usual: str, other: str) -> None:
    rows = f"a.jpg,{other}\nb.jpg,{usual}\nc.jpg,{usual}\nd.jpg,Hat\nb.jpg,{other}\n"
    listing = read(folder, f"path,label\n{rows}")
    assert labels(listing) == {"a.jpg": usual, "b.jpg": usual, "c.jpg": usual, "d.jpg": "Hat"}
    assert listing.repeated == 1, "the photo that is named again is not contradicted"
    first = labels(read(folder, "path,label\na.jpg,Kilt\nb.jpg,kilt\nc.jpg,C++\nd.jpg,C#\n"))
    assert list(first.values()) == ["Kilt", "Kilt", "C++", "C#"]


def test_a_label_is_in_the_form_of_a_folders(folder: Path) -> None:
    assert labels(read(folder, "path,label\na.jpg,Ro\u0308cke\n")) == {"a.jpg": "Röcke"}


def test_what_predict_says_is_not_yet_known_to_be_true(folder: Path) -> None:
    header = "path,label,probability,sure,error"
    rows = "a.jpg,Hat,0.9,true,\nb.jpg,Dress,0.4,false,\nc.jpg,,,,does not exist\n"
    listing = read(folder, f"{header}\n{rows}")
    assert labels(listing) == {"a.jpg": "Hat", "b.jpg": "Dress", "c.jpg": None}
    assert listing.guessed == 2
    checked = read(folder, f"truth,{header}\nHat,a.jpg,Dress,0.9,true,\n")
    assert (labels(checked), checked.guessed) == ({"a.jpg": "Hat"}, 0)
    judged = read(folder, "path,label,predicted,probability,sure,right,error\na.jpg,Hat,Dress,0.9,true,false,\n")
    assert (labels(judged), judged.guessed) == ({"a.jpg": "Hat"}, 0)


def test_what_contradicts_itself_is_no_answer_of_a_model(folder: Path) -> None:
    header = "path,label,probability,sure,error"
    listing = read(folder, f"{header}\na.jpg,Hat,0.9,true,\na.jpg,Dress,0.4,false,\nb.jpg,Hat,0.9,true,\n")
    assert (labels(listing), listing.guessed) == ({"a.jpg": None, "b.jpg": "Hat"}, 1)


def test_only_the_page_puts_apostrophes_before_names(folder: Path) -> None:
    listing = read(folder, "path,truth\n'=a.jpg,'-Kilt\na.jpg,Hat\n")
    assert labels(listing) == {"'=a.jpg": "'-Kilt", "a.jpg": "Hat"}


def test_what_says_nothing_is_passed_over(folder: Path) -> None:
    listing = read(folder, "sep=?,note,path,truth,note\n,x,a.jpg,Hat,y,,\n ,,,,\n")
    assert (labels(listing), listing.rows, listing.missing) == ({"a.jpg": "Hat"}, 1, ())


def test_what_the_page_says_is_counted_whatever_classes_are_called(folder: Path) -> None:
    header = "name,answer,label,probability,sure,corrected,error"
    rows = "a.jpg,'-Kilt,'-Kilt,0.9,true,false,\nb.jpg,Hat,'-Kilt,0.9,true,true,\nc.jpg,'-Kilt,'-Kilt,0.9,true,true,\n"
    listing = read(folder, f"{header}\n{rows}")
    assert labels(listing) == {"a.jpg": "-Kilt", "b.jpg": "Hat", "c.jpg": "-Kilt"}
    assert listing.guessed == 1, "the others a person has named"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, to run the page's script")
def test_the_page_writes_what_is_read(folder: Path) -> None:
    names = ["a.jpg", "=1+1.jpg", "'b.jpg", 'c",;\n.jpg', "unsure.jpg", "named.jpg", "broken.jpg"]
    result = {"answer": "Hat", "label": "Hat", "probability": 0.95, "sure": True, "labels": [{}]}
    unsure = result | {"answer": "not sure", "probability": 0.4, "sure": False}
    photos = [{"name": name, "answer": None, "result": result, "error": None} for name in names]
    photos[1] |= {"answer": "-Kilt"}
    photos[4] |= {"result": unsure}
    photos[5] |= {"result": unsure, "answer": "Hat"}
    photos[6] |= {"result": None, "error": {"reason": "is empty"}}
    script = Path(clothing_classifier.__file__).parent / "service" / "page" / "csv.js"
    shutil.copy(script, folder / "csv.mjs")
    code = f'import {{ toCsv }} from "./csv.mjs"; process.stdout.write(toCsv({json.dumps(photos)}))'
    command = ["node", "--input-type=module", "-e", code]
    table = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=60).stdout
    listing = read(folder, table)
    assert labels(listing) == dict(zip(names, ["Hat", "-Kilt", "Hat", "Hat", "not sure", "Hat", None], strict=True))
    assert listing.guessed == 3, "those that the model was sure of and that nobody corrected"


def test_a_manifest_keeps_out_what_was_dropped(folder: Path) -> None:
    photos = (
        Photo("a.jpg", "Hat", sender="7", part="test", width=1, height=1),
        Photo("b.jpg", "Hat", dropped="exact copy: of a.jpg", width=1, height=1),
    )
    Manifest(folder, "GitHub", photos, ("c",)).write(folder / "manifest.csv")
    found = read_labels(folder / "manifest.csv").photos
    assert [(p.path, p.label, p.sender, p.part) for p in found[:1]] == [("a.jpg", "Hat", "7", "test")]
    assert {p.path: p.dropped for p in found[1:]} == {"b.jpg": "exact copy: of a.jpg", "c": "row without a photo"}


def test_photos_are_looked_for_by_the_table_then_here_then_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
        (place / f"{place.name}.jpg").touch()
    monkeypatch.chdir(here)
    table = there / "table.csv"
    table.write_text("path,label\nhere.jpg,Hat\nthere.jpg,Hat\n")
    assert read_labels(table).root == there
    assert read_labels(table, here).root == here
    table.write_text("path,label\nhere.jpg,Hat\n")
    assert read_labels(table).root == Path()
    table.write_text("path,label\nnone.jpg,Hat\n")
    with pytest.raises(DatasetError, match=r"none of its photos, such as none.jpg, is in .*there or .*here; say by"):
        read_labels(table)
    with pytest.raises(DatasetError, match="here; say by --photos"):
        read_labels(table, here)
    table.write_text("path,label\nhttps://a.example/hat.jpg,Hat\n")
    with pytest.raises(
        DatasetError, match=r"its photos are web addresses, such as https://a.example/hat.jpg; download"
    ):
        read_labels(table)
    table.write_text(f"path,label\n{here / 'here.jpg'},Hat\n")
    assert read_labels(table).root == there


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b"", "it names: nothing"),
        (b"path,label\n", "names no photos"),
        (b"path,label\n,Hat\n", "names no photos"),
        (b"photo of,label\na,Hat\n", "it names: photo of, label"),
        (b"path,path,label\na,b,Hat\n", "has the column path more than once"),
        (b"a.jpg,Hat\nb.jpg,Dress\n", "its first line should name a column for the photo"),
        (b'path,label\na.jpg,Hat\n"b.jpg,Hat\n', "is damaged after line"),
        (b"path,label\na.jpg,Hat\nb,c.jpg,Hat\n", "line 3 has more cells than the first line"),
        (b"path,label\n" + b"x" * 200_000 + b",Hat\n", "is damaged after line 1 (field larger than field limit"),
        ("path,label\na.jpg,Hat\n".encode("utf-16"), "is in UTF-16; save it again as CSV in UTF-8"),
        (
            b"PK\3\4\x14\0\6\0\x08\0",
            "is a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV in UTF-8",
        ),
        (b"\xd0\xcf\x11\xe0" + bytes(12), "is no table of text (it holds NUL bytes)"),
        ("path,label\na.jpg,Hat\n".encode("utf-16-le"), "is no table of text (it holds NUL bytes)"),
    ],
)
def test_a_table_that_is_none_is_told_what_is_wrong(folder: Path, table: bytes, reason: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read(folder, table)
    assert str(caught.value).startswith(f"{folder / 'table.csv'}: ")
    assert reason in str(caught.value)


def test_what_is_no_table_at_all(folder: Path) -> None:
    with pytest.raises(DatasetError, match="is a photo; give a folder with one folder of photos per class"):
        read_labels(folder / "a.jpg")
    with pytest.raises(DatasetError, match=r"none.csv: cannot be read \(No such file"):
        read_labels(folder / "none.csv")


@given(
    st.binary() | st.text(st.sampled_from(",;\t\"'\r\n\0=path label")).map(lambda text: f"path,label\n{text}".encode())
)
def test_no_table_breaks_the_reader(folder: Path, table: bytes) -> None:
    try:
        listing = read(folder, table)
    except DatasetError:
        return
    assert listing.photos


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@given(
    rows=st.dictionaries(names, names.map(str.strip), max_size=5),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_any_name_and_label_come_back(folder: Path, rows: dict[str, str], delimiter: str, end: str) -> None:
    rows = {"a.jpg": "Hat"} | {name: label for name, label in rows.items() if "/" not in name}
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("label", "path"), *((label, name) for name, label in rows.items())])
    found = labels(read(folder, stream.getvalue()))
    assert found.keys() == rows.keys()
    for name, label in rows.items():
        spellings = [other for other in rows.values() if fold_label(other) == fold_label(label)]
        assert found[name] in [unicodedata.normalize("NFC", spelling) for spelling in spellings]


@pytest.mark.skipif(os.name != "posix", reason="file names of POSIX are bytes")
def test_a_name_that_is_not_utf8_is_the_file_it_was(folder: Path) -> None:
    name = b"gr\xf6\xdfe.png"
    try:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).touch()
    except OSError:
        pytest.skip("the file system only takes UTF-8")
    listing = read(folder, b"path,label\n" + name + b",Hat\n")
    assert os.fsencode(listing.photos[0].path) == name


def test_parts_go_by_many_names(folder: Path) -> None:
    listing = read(folder, "path,label,part\na.jpg,Hat,val\nb.jpg,Hat,Test\nc.jpg,Hat,sleeve\n")
    assert [photo.part for photo in listing.photos] == ["validation", "test", None]


def test_a_path_from_here_is_the_same_photo(folder: Path) -> None:
    listing = read(folder, "path,label\na.jpg,Hat\n./a.jpg,Dress\n")
    assert [(photo.path, photo.dropped) for photo in listing.photos] == [("a.jpg", "contradictory rows: Hat and Dress")]


@pytest.mark.skipif(os.sep == "\\", reason="there such paths are right")
def test_paths_of_windows_are_told_apart(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"none of its photos, such as p\\a.jpg, .*; write / for \\ in its paths"):
        read(folder, "path,label\np\\a.jpg,Hat\n")


@pytest.mark.parametrize("row", ["a.jpg,Jäckchen", "café.jpg,Hat"])
def test_a_table_in_a_code_page_of_windows_is_refused(folder: Path, row: str) -> None:
    with pytest.raises(DatasetError, match=r"table.csv: is not UTF-8 text; save it again as CSV in UTF-8"):
        read(folder, f"path,label\na.jpg,Hat\n{row}\n".encode("cp1252"))


def test_a_table_in_a_code_page_of_windows_is_refused_where_none_of_its_photos_is_found(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"table.csv: is not UTF-8 text; save it again as CSV in UTF-8"):
        read(folder, "path,label\ncafé.jpg,Hat\n".encode("cp1252"))
