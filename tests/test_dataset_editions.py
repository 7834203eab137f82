from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clothing_classifier.dataset import DatasetError, Manifest, Photo
from clothing_classifier.dataset.editions import Listing, is_published, list_photos

HEADER = "image,sender_id,label,kids\n"
TABLE = HEADER + "a,7,Dress,False\nb,8,T-Shirt,True\n"

posix = pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")


def lay(root: Path, *paths: str, table: str | bytes | None = None) -> Path:
    """Make empty files and folders (those that end in a slash); listing photos does not open them."""
    for path in paths:
        target = root / path
        (target if path.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            target.touch()
    if table is not None:
        (root / "images.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def labels(listing: Listing) -> dict[str, str | None]:
    return {photo.path: photo.label for photo in listing.photos}


def dropped(listing: Listing) -> dict[str, str]:
    return {photo.path: photo.dropped for photo in listing.photos if photo.dropped}


# ---------------------------------------------------------------------------------------------------------- tables


def test_github(tmp_path: Path) -> None:
    listing = list_photos(lay(tmp_path, "README.md", "images/b.jpg", "images/a.jpg", "images/c.jpg", table=TABLE))
    assert (listing.root, listing.edition, listing.rows) == (tmp_path, "GitHub", 2)
    assert labels(listing) == {"images/a.jpg": "Dress", "images/b.jpg": "T-Shirt", "images/c.jpg": None}
    assert [photo.sender for photo in listing.photos] == ["7", "8", None]
    assert [photo.kids for photo in listing.photos] == [False, True, None]
    assert dropped(listing) == {"images/c.jpg": "no row in images.csv"}
    assert listing.without_row == ("images/c.jpg",)
    assert listing.missing == ()


def test_kaggle_has_two_sizes_to_choose_from(tmp_path: Path) -> None:
    lay(tmp_path, "images_original/a.jpg", "images_original/b.jpg", "images_compressed/a.jpg", table=TABLE)
    assert list_photos(tmp_path).edition == "Kaggle (compressed photos)"
    assert list_photos(tmp_path, "compressed") == list_photos(tmp_path)
    assert list_photos(tmp_path).missing == ("b",)
    original = list_photos(tmp_path, "original")
    assert original.edition == "Kaggle (original photos)"
    assert labels(original) == {"images_original/a.jpg": "Dress", "images_original/b.jpg": "T-Shirt"}


def test_kaggle_with_one_size_takes_it_unless_the_other_is_asked_for(tmp_path: Path) -> None:
    lay(tmp_path, "images_original/a.jpg", table=TABLE)
    assert list_photos(tmp_path).edition == "Kaggle (original photos)"
    with pytest.raises(DatasetError, match="images_compressed/ is not there"):
        list_photos(tmp_path, "compressed")


def test_a_size_cannot_be_chosen_where_there_is_one(tmp_path: Path) -> None:
    github = lay(tmp_path / "github", "images/a.jpg", table=TABLE)
    folders = lay(tmp_path / "folders", "hat/a.jpg", "sari/a.jpg")
    for root in (github, folders):
        with pytest.raises(DatasetError, match="only Kaggle's edition has original photos"):
            list_photos(root, "original")


@pytest.mark.parametrize("depth", [1, 2])
def test_the_folder_that_an_archive_puts_around_everything_is_passed(tmp_path: Path, depth: int) -> None:
    inner = tmp_path.joinpath(*["clothing-dataset-master"] * depth)
    lay(inner, "images/a.jpg", table=TABLE)
    lay(tmp_path, "__MACOSX/._images.csv", ".DS_Store", "clothing.zip")
    listing = list_photos(tmp_path)
    assert listing.root == inner
    assert list(labels(listing)) == ["images/a.jpg"]


@pytest.mark.parametrize(
    "table",
    [
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\na,", "\na.jpg,"),
        TABLE.replace("\na,", "\na.jpeg,"),
        "kids,label,size,sender_id,image\nFalse,Dress,9,7,a\nTrue,T-Shirt,9,8,b\n",
        " Image , sender_id,LABEL,kids\n a , 7,Dress , False\nb,8,t-shirt,TRUE,,,\n\n,,,\n",
        'image,sender_id,label,kids\n"a","7","Dress","False"\n"b","8","T-Shirt","1"',
    ],
)
def test_a_table_may_be_spelled_in_many_ways(tmp_path: Path, table: str) -> None:
    listing = list_photos(lay(tmp_path, "images/a.jpg", "images/b.jpg", table=table))
    found = [(photo.label, photo.sender, photo.kids, photo.dropped) for photo in listing.photos]
    assert found == [("Dress", "7", False, ""), ("T-Shirt", "8", True, "")]
    assert (listing.rows, listing.missing) == (2, ())


@pytest.mark.parametrize(
    ("kids", "meant"),
    [("True", True), ("true", True), ("1", True), ("False", False), ("0", False), ("", None), ("maybe", None)],
)
def test_kids_may_be_spelled_in_many_ways(tmp_path: Path, kids: str, meant: bool | None) -> None:
    listing = list_photos(lay(tmp_path, "images/a.jpg", table=f"{HEADER}a,7,Dress,{kids}\n"))
    assert [photo.kids for photo in listing.photos] == [meant]


def test_sender_and_kids_may_be_missing(tmp_path: Path) -> None:
    listing = list_photos(lay(tmp_path, "images/a.jpg", table="image,label\na,Dress\n"))
    assert [(photo.label, photo.sender, photo.kids) for photo in listing.photos] == [("Dress", None, None)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,sender_id,kids\na,7,True\n", "the column label is missing"),
        ("file;sender_id;label;kids\n", "the column image is missing"),
        ("image,label,label\na,Hat,Dress\n", "has the column label 2 times"),
        ("", "the column image is missing"),
        (HEADER, "has no rows"),
        (TABLE.encode("utf-16"), "is not UTF-8 text"),
        (HEADER + "a,7," + "x" * 200_000, "is damaged after line 1"),
    ],
)
def test_an_unusable_table_is_named(tmp_path: Path, table: str | bytes, message: str) -> None:
    lay(tmp_path, "images/a.jpg", table=table)
    with pytest.raises(DatasetError, match=message) as error:
        list_photos(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'images.csv'}: ")


def test_every_reason_against_a_row_is_told(tmp_path: Path) -> None:
    table = (
        f"{HEADER}again,7,Dress,\nagain.jpg,7,dress,\nagain,7,DRESS,True\n"
        "torn,7,Dress,\ntorn,7,Skirt,\nsofa,7,Sofa,\nempty,7,,\nshort\nunsure,7,Not sure,\nother,7,Other,\n"
        "gone,7,Skip,\ngone,7,Skip,\n,7,Dress,\n"
    )
    names = ("again", "torn", "sofa", "empty", "short", "unsure", "other")
    listing = list_photos(lay(tmp_path, *(f"images/{name}.jpg" for name in names), table=table))
    assert dropped(listing) == {
        "images/torn.jpg": "contradictory rows: Dress, Skirt",
        "images/sofa.jpg": "unknown label: Sofa",
        "images/empty.jpg": "no label in images.csv",
        "images/short.jpg": "no label in images.csv",
        "images/unsure.jpg": "label Not sure: the photographer did not know what it is",
        "images/other.jpg": "label Other: a garment or thing that none of the classes names",
    }
    assert listing.rows == 13
    assert listing.repeated == 2
    assert listing.missing == ("(no name, line 14)", "gone")
    assert listing.without_row == ()
    assert labels(listing)["images/torn.jpg"] is None, "neither is what it shows"
    again = listing.photos[0]
    assert (again.path, again.label, again.kids) == ("images/again.jpg", "Dress", True)


def test_the_first_row_that_names_a_sender_does(tmp_path: Path) -> None:
    table = f"{HEADER}a,,Dress,\na,7,Dress,\na,8,Dress,\n"
    assert list_photos(lay(tmp_path, "images/a.jpg", table=table)).photos[0].sender == "7"


def test_which_editions_are_published(tmp_path: Path) -> None:
    found = [
        list_photos(lay(tmp_path / "a", "images/a.jpg", table=TABLE)),
        list_photos(lay(tmp_path / "b", "images_original/a.jpg", table=TABLE)),
        list_photos(lay(tmp_path / "c", "train/dress/1.jpg", "test/hat/2.jpg")),
        list_photos(lay(tmp_path / "d", "train/dress/1.jpg", "test/blazer/2.jpg")),
        list_photos(lay(tmp_path / "e", "dress/1.jpg")),
    ]
    assert [is_published(listing.edition) for listing in found] == [True, True, True, False, False]
    assert not is_published(None)


def test_files_are_matched_by_their_full_name_first(tmp_path: Path) -> None:
    table = f"{HEADER}a,1,Dress,\na.png,2,Hat,\nb,3,Skirt,\nv1.2,4,Polo,\n"
    names = ("a.avif", "a.jpg", "a.png", "b.WEBP", "v1.2.jpg")
    listing = list_photos(lay(tmp_path, *(f"images/{name}" for name in names), table=table))
    assert labels(listing) == {
        "images/a.avif": None,
        "images/a.jpg": "Dress",
        "images/a.png": "Hat",
        "images/b.WEBP": "Skirt",
        "images/v1.2.jpg": "Polo",
    }


def test_what_is_no_photo_is_reported_and_what_systems_hide_is_not(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.jpg", "images/a.jpg.part", "images/b.JPG", "images/more/c.jpg", table=TABLE)
    lay(tmp_path, "images/.DS_Store", "images/._a.jpg", "images/Thumbs.db", "images/desktop.ini", "images/__MACOSX/")
    listing = list_photos(tmp_path)
    assert list(labels(listing)) == ["images/a.jpg", "images/b.JPG"]
    assert listing.ignored == ("images/a.jpg.part", "images/more/")


def test_a_name_in_the_table_leads_nowhere_else(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "secret.jpg",
        "images/a.jpg",
        table=f"{HEADER}../secret,7,Dress,\n{tmp_path}/secret.jpg,7,Hat,\na,7,Hat,",
    )
    listing = list_photos(tmp_path)
    assert list(labels(listing)) == ["images/a.jpg"]
    assert len(listing.missing) == 2


@given(st.lists(st.lists(st.text(max_size=8), max_size=6), max_size=8))
def test_no_table_brings_it_down(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    root = lay(tmp_path_factory.mktemp("wild"), "images/a.jpg")
    lines = "\n".join(",".join(row) for row in rows)
    (root / "images.csv").write_bytes((TABLE + lines).encode("utf-8", "surrogatepass"))
    try:
        listing = list_photos(root)
    except DatasetError:  # such as a NUL before Python 3.11
        return
    assert list(labels(listing)) == ["images/a.jpg"]


# ---------------------------------------------------------------------------------------------------------- folders


def test_classes_of_ones_own_in_parts_keep_their_names(tmp_path: Path) -> None:
    """Though each is a name for one of the published classes, and two are names for the same one."""
    names = ("pants", "trousers", "tee", "dress")
    paths = [f"{part}/{name}/{part}-{name}.jpg" for part in ("train", "validation", "test") for name in names]
    listing = list_photos(lay(tmp_path, *paths))
    assert listing.edition == "folder per class, in parts"
    assert {photo.label for photo in listing.photos} == {"pants", "trousers", "tee", "dress"}


def test_the_subset_has_parts_and_published_classes(tmp_path: Path) -> None:
    names = ("train/t-shirt/1.jpg", "train/dress/2.jpg", "validation/t-shirt/3.jpg", "test/dress/4.jpg")
    listing = list_photos(lay(tmp_path, *names, "README.md", "train/list.txt", "notes/x.txt", "test/dress/x.txt"))
    assert listing.edition == "ten-class subset"
    assert labels(listing) == {
        "test/dress/4.jpg": "Dress",
        "train/dress/2.jpg": "Dress",
        "train/t-shirt/1.jpg": "T-Shirt",
        "validation/t-shirt/3.jpg": "T-Shirt",
    }
    assert [photo.part for photo in listing.photos] == ["test", "train", "train", "validation"]
    assert listing.ignored == ("notes/", "test/dress/x.txt", "train/list.txt")
    assert listing.rows is None


def test_own_classes_in_parts_stay_as_they_are_spelled(tmp_path: Path) -> None:
    listing = list_photos(lay(tmp_path, "Train/t-shirt/1.jpg", "val/sari/2.jpg", "test/t-shirt/3.jpg"))
    assert listing.edition == "folder per class, in parts"
    assert [(photo.label, photo.part) for photo in listing.photos] == [
        ("t-shirt", "train"),
        ("t-shirt", "test"),
        ("sari", "validation"),
    ]


def test_own_classes_stay_as_they_are_spelled(tmp_path: Path) -> None:
    paths = ("t-shirt/1.jpg", "Été/2.jpg", "Other/old/3.png", "Other/4.heic", "Other/notes.txt", "5.jpg")
    listing = list_photos(lay(tmp_path, *paths, ".cache/6.jpg", "sari/", "train/7.jpg", "test/8.jpg"))
    assert listing.edition == "folder per class"
    assert labels(listing) == {
        "Other/4.heic": "Other",
        "Other/old/3.png": "Other",
        "t-shirt/1.jpg": "t-shirt",
        "test/8.jpg": "test",
        "train/7.jpg": "train",
        "Été/2.jpg": "Été",
    }
    assert dropped(listing) == {}
    assert listing.ignored == ("5.jpg", "Other/notes.txt")


def test_one_class_folder_is_a_class_and_not_a_wrapping(tmp_path: Path) -> None:
    assert labels(list_photos(lay(tmp_path, "hat/1.jpg", "hat/old/2.jpg"))) == {
        "hat/1.jpg": "hat",
        "hat/old/2.jpg": "hat",
    }


@posix
def test_a_class_folder_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    try:
        lay(tmp_path, "a/1.jpg", os.fsdecode(b"caf\xe9/2.jpg"))
    except OSError:
        pytest.skip("a file system that only takes UTF-8")
    with pytest.raises(DatasetError, match=r"the class folder 'caf\\udce9' has a name that is not UTF-8; rename it"):
        list_photos(tmp_path)


@posix
def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    elsewhere = lay(tmp_path / "elsewhere", "sari/1.jpg", "2.jpg")
    root = lay(tmp_path / "data", "hat/3.jpg")
    (root / "sari").symlink_to(elsewhere / "sari")
    (root / "hat" / "link.jpg").symlink_to(elsewhere / "2.jpg")
    (root / "hat" / "nowhere.jpg").symlink_to(root / "none.jpg")
    (root / "hat" / "itself.jpg").symlink_to(root / "hat" / "itself.jpg")
    (root / "hat" / "up").symlink_to(root)
    (root / "all").symlink_to(root)
    (elsewhere / "sari" / "round").symlink_to(elsewhere)
    assert set(labels(list_photos(root))) == {
        "hat/3.jpg",
        "hat/itself.jpg",
        "hat/link.jpg",
        "hat/nowhere.jpg",
        "sari/1.jpg",
        "sari/round/2.jpg",
    }


@posix
def test_a_folder_that_holds_only_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "inner").symlink_to(tmp_path)
    with pytest.raises(DatasetError, match="no photos are recognised"):
        list_photos(tmp_path)


@posix
def test_a_pipe_is_no_photo(tmp_path: Path) -> None:
    lay(tmp_path, "hat/1.jpg", "sari/2.jpg")
    os.mkfifo(tmp_path / "hat" / "3.jpg")
    assert list_photos(tmp_path).ignored == ("hat/3.jpg",)


@pytest.mark.parametrize(
    ("paths", "table", "message"),
    [
        ((), None, "the folder is empty; put a folder of photos for each class there, or"),
        ((".git/x", "Thumbs.db"), None, "the folder is empty"),
        (("README.md",), None, "no photos are recognised"),
        (("notes/a.txt", "more/b.txt"), None, "no photos are recognised"),
        (("a.jpg", "b.jpg"), None, "put each class into a folder"),
        (("images/a.jpg",), None, "images.csv is missing beside images/"),
        (
            ("images_original/a.jpg", "images_compressed/a.jpg"),
            None,
            "missing beside images_compressed/ and images_original/",
        ),
        (("a.jpg",), TABLE, "has images.csv but no photos"),
        (("images/a.txt",), TABLE, "images: holds no photos"),
        (("train/hat/a.txt", "test/hat/a.txt"), None, "no photos are recognised in the class folders of test, train"),
    ],
)
def test_what_is_no_dataset_is_told(tmp_path: Path, paths: tuple[str, ...], table: str | None, message: str) -> None:
    lay(tmp_path, *paths, table=table)
    with pytest.raises(DatasetError, match=message) as error:
        list_photos(tmp_path)
    assert str(error.value).startswith(str(tmp_path))


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file: is a file; give the dataset's folder"):
        list_photos(tmp_path / "file")
    with pytest.raises(DatasetError, match="none: there is no such folder"):
        list_photos(tmp_path / "none")


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    lay(tmp_path, "hat/1.jpg", "sari/2.jpg")
    (tmp_path / "hat").chmod(0)
    with pytest.raises(DatasetError, match=r"hat: the folder cannot be read \(Permission denied\)"):
        list_photos(tmp_path)
    (tmp_path / "hat").chmod(0o700)


@pytest.mark.parametrize(("teaching", "judging"), [("training", "testing"), ("Train", "dev"), ("train", "validation")])
def test_parts_go_by_many_names(tmp_path: Path, teaching: str, judging: str) -> None:
    listing = list_photos(lay(tmp_path, f"{teaching}/sari/1.jpg", f"{judging}/sari/2.jpg", f"{judging}/kilt/3.jpg"))
    assert {photo.label for photo in listing.photos} == {"sari", "kilt"}
    assert {photo.part for photo in listing.photos} == {"train", "test" if judging == "testing" else "validation"}


def test_a_part_beside_classes_is_not_taken_for_one_of_them(tmp_path: Path) -> None:
    root = lay(tmp_path, "train/sari/1.jpg", "extra/sari/2.jpg")
    with pytest.raises(DatasetError, match=r"train/ holds folders like a part of the data.*call the parts train"):
        list_photos(root)


def test_a_class_may_be_called_like_a_part_or_like_a_folder_of_the_published_editions(tmp_path: Path) -> None:
    names = ("images/1.jpg", "sari/2.jpg", "test/3.jpg", "test/more/4.jpg")
    assert labels(list_photos(lay(tmp_path, *names))) == {name: name.partition("/")[0] for name in names}


def test_photos_beside_a_folder_are_not_passed_by(tmp_path: Path) -> None:
    listing = list_photos(lay(tmp_path, "1.jpg", "all/sari/2.jpg", "all/kilt/3.jpg"))
    assert (listing.root, listing.ignored) == (tmp_path, ("1.jpg",))


def test_one_name_in_two_spellings_of_file_systems_is_one_class(tmp_path: Path) -> None:
    composed, decomposed = ("J\u00e4ckchen", "Ja\u0308ckchen")
    listing = list_photos(lay(tmp_path, f"{decomposed}/1.jpg", f"{decomposed}/2.txt", "sari/3.jpg"))
    assert {photo.label for photo in listing.photos} == {composed, "sari"}
    assert listing.empty == ()
    manifests = [
        Manifest(tmp_path, "folder per class", (Photo(f"{name}/1.jpg", label=name, sha256="1", width=1, height=1),))
        for name in (composed, decomposed)
    ]
    assert manifests[0].digest == manifests[1].digest


@posix
@pytest.mark.parametrize("parts", [("",), ("train/", "test/")], ids=["folders", "parts"])
def test_folders_that_spell_one_class_are_one(tmp_path: Path, parts: tuple[str, ...]) -> None:
    lay(tmp_path, "Kilt/x", "kilt/x")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("a file system where they are one folder")
    first, last = parts[0], parts[-1]
    names = (f"{first}Zori x/1.jpg", f"{last}zori  X/2.jpg", f"{last}zori  X/3.jpg", f"{last}sari/4.jpg")
    listing = list_photos(lay(tmp_path / "data", *names, f"{first}SARI/", f"{first}hat/"))
    assert {path.rpartition("/")[2]: label for path, label in labels(listing).items()} == {
        "1.jpg": "zori  X",
        "2.jpg": "zori  X",
        "3.jpg": "zori  X",
        "4.jpg": "sari",
    }
    assert listing.empty == ("hat",)


def test_folders_of_archivers_and_drives_are_no_classes(tmp_path: Path) -> None:
    listing = list_photos(lay(tmp_path, "sari/1.jpg", "sari/@eaDir/1.jpg/SMALL.jpg", "@eaDir/2.jpg", "#recycle/3.jpg"))
    assert [photo.path for photo in listing.photos] == ["sari/1.jpg"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_table_that_a_spreadsheet_saved_again_is_read(tmp_path: Path, delimiter: str) -> None:
    root = lay(tmp_path, "images/a.jpg")
    rows = [("image", "sender_id", "label", "kids"), ("a", "7", "Hat", "False")]
    (root / "images.csv").write_text("\ufeff" + "\n".join(map(delimiter.join, rows)), "utf-8")
    assert [(photo.label, photo.sender) for photo in list_photos(root).photos] == [("Hat", "7")]
