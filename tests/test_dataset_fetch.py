from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clothing_classifier.dataset import DatasetError, check_dataset
from clothing_classifier.dataset.download import FetchError
from clothing_classifier.dataset.fetch import compare_with_published, fetch_github, fetch_kaggle

Respond = Callable[[BaseHTTPRequestHandler], None]
Loopback = Callable[[Respond], str]

ROWS = "image,sender_id,label,kids\na,1,Dress,False\nb,2,Hat,True\n"


class Told:
    """A reporter that remembers what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, doing: str, done: int, total: int | None) -> None:
        pass


def photo(seed: int, side: int = 100) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def pack(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


GITHUB = {
    "clothing-dataset-master/": b"",
    "clothing-dataset-master/README.md": b"A dataset.",
    "clothing-dataset-master/images.csv": ROWS.encode(),
    "clothing-dataset-master/images/a.jpg": photo(0),
    "clothing-dataset-master/images/b.jpg": photo(1),
}
ARCHIVE = pack(GITHUB)


class Storage:
    """A server of one archive that can be continued; the first answer may stop after some bytes, or wait there."""

    def __init__(
        self, content: bytes = ARCHIVE, *, cut: int | None = None, wait: threading.Event | None = None
    ) -> None:
        self.content = content
        self.cut = cut
        self.wait = wait
        self.ranges: list[str | None] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        body = self.content[start:]
        handler.send_response(206 if asked else 200)
        handler.send_header("ETag", '"one"')
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Length", str(len(body)))
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.end_headers()
        handler.wfile.write(body[: self.cut])
        if self.cut is not None and self.wait is not None:
            self.wait.wait(60)
        self.cut = None
        handler.close_connection = True


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "clothing"


def test_github_arrives_without_the_folder_around_it(loopback: Loopback, folder: Path) -> None:
    fetch_github(folder, Told(), url=loopback(Storage()))
    assert files(folder) == {
        name.removeprefix("clothing-dataset-master/"): content
        for name, content in GITHUB.items()
        if not name.endswith("/")
    }
    assert list(folder.parent.iterdir()) == [folder]
    assert check_dataset(folder).manifest.classes == ("Dress", "Hat")


def test_the_folder_is_absent_until_it_is_whole(loopback: Loopback, folder: Path) -> None:
    storage = Storage(cut=len(ARCHIVE) // 2)
    url = loopback(storage)
    with pytest.raises(FetchError, match="run the command again to go on"):
        fetch_github(folder, Told(), url=url, pauses=())
    assert [path.name for path in folder.parent.iterdir()] == ["clothing.part"]
    fetch_github(folder, Told(), url=url, pauses=())
    assert storage.ranges == [None, f"bytes={len(ARCHIVE) // 2}-"]
    assert check_dataset(folder).manifest.classes == ("Dress", "Hat")
    assert list(folder.parent.iterdir()) == [folder]


def test_another_address_does_not_continue_the_first_one(loopback: Loopback, folder: Path) -> None:
    with pytest.raises(FetchError):
        fetch_github(folder, Told(), url=loopback(Storage(pack({"x": photo(5)}), cut=100)), pauses=())
    storage = Storage()
    fetch_github(folder, Told(), url=loopback(storage), pauses=())
    assert storage.ranges == [None]


def test_an_archive_that_is_whole_is_not_downloaded_again(
    loopback: Loopback, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage()
    url = loopback(storage)

    def stop(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)  # the last step
        with pytest.raises(KeyboardInterrupt):
            fetch_github(folder, Told(), url=url)
    assert not folder.exists()
    fetch_github(folder, Told(), url=url)
    assert len(storage.ranges) == 1
    assert "images/a.jpg" in files(folder)


def test_an_empty_folder_is_filled(loopback: Loopback, folder: Path) -> None:
    folder.mkdir(parents=True)
    fetch_github(folder, Told(), url=loopback(Storage()))
    assert "images.csv" in files(folder)


def test_a_folder_in_use_is_not_touched(loopback: Loopback, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage()
    url = loopback(storage)
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    for taken in (folder, folder / "mine.txt"):
        with pytest.raises(DatasetError, match="is there already"):
            fetch_github(taken, Told(), url=url)
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    with pytest.raises(DatasetError, match="is the current folder"):
        fetch_github(Path(), Told(), url=url)
    with pytest.raises(DatasetError, match="cannot be made"):
        fetch_github(folder / "mine.txt" / "below", Told(), url=url)
    assert storage.ranges == []
    assert files(folder.parent) == {"clothing/mine.txt": b"mine"}


def corrupt(archive: bytes) -> bytes:
    """Change a byte in the content of the largest member."""
    place = archive.index(b"images/a.jpg") + 2000
    return archive[:place] + bytes([archive[place] ^ 1]) + archive[place + 1 :]


def encrypt(archive: bytes) -> bytes:
    changed = bytearray(archive)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := archive.find(signature, start + 1)) >= 0:
            changed[start + offset] |= 1
    return bytes(changed)


def link(target: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in GITHUB.items():
            archive.writestr(name, content)
        member = zipfile.ZipInfo("clothing-dataset-master/images/c.jpg")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, target)
    return file.getvalue()


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"<html>Sign in to the hotel's network</html>", "is not a whole ZIP archive"),
        (b"", "is not a whole ZIP archive"),
        (ARCHIVE[: len(ARCHIVE) // 2], "is not a whole ZIP archive"),
        (corrupt(pack(GITHUB, zipfile.ZIP_STORED)), "Bad CRC-32"),
        (corrupt(ARCHIVE), "is not a whole ZIP archive"),
        (encrypt(ARCHIVE), "an encrypted file"),
        (pack(GITHUB | {"../outside.jpg": b"x"}), "written elsewhere"),
        (pack(GITHUB | {"a/../../outside.jpg": b"x"}), "written elsewhere"),
        (pack(GITHUB | {"/outside.jpg": b"x"}), "written elsewhere"),
        (pack(GITHUB | {"C:/outside.jpg": b"x"}), "written elsewhere"),
        (pack(GITHUB | {"..\\outside.jpg": b"x"}), "written elsewhere"),
        (link("/etc/hostname"), "holds a link"),
        (pack(GITHUB | {"bomb.jpg": bytes(70 * 2**20)}), "too many for its size"),
    ],
    ids=[
        "page",
        "empty",
        "cut",
        "checksum",
        "stream",
        "encrypted",
        "up",
        "up-below",
        "root",
        "drive",
        "backslash",
        "link",
        "bomb",
    ],
)
def test_an_archive_that_is_damaged_or_dangerous_is_deleted(
    loopback: Loopback, folder: Path, archive: bytes, message: str
) -> None:
    url = loopback(Storage(archive))
    with pytest.raises(FetchError, match=message) as error:
        fetch_github(folder, Told(), url=url)
    assert str(error.value).startswith(f"{url}: ")
    assert "run the command again to download it anew" in str(error.value)
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == []
    assert not any(path.name == "outside.jpg" for path in folder.parents[1].rglob("*"))
    fetch_github(folder, Told(), url=loopback(Storage()))
    assert "images.csv" in files(folder)


def test_an_archive_of_something_else_is_deleted(loopback: Loopback, folder: Path) -> None:
    with pytest.raises(FetchError, match="what arrived is not the dataset, and is deleted"):
        fetch_github(folder, Told(), url=loopback(Storage(pack({"code-main/setup.py": b"pass"}))))
    assert list(folder.parent.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_is_full_while_unpacking_is_told(loopback: Loopback, folder: Path) -> None:
    import resource

    archive = pack(GITHUB | {"clothing-dataset-master/plain.txt": bytes(10**6)})
    storage = Storage(archive)
    url = loopback(storage)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(FetchError, match=r"cannot be written \(.*\); make room .* run the command again"):
            fetch_github(folder, Told(), url=url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not folder.exists()
    fetch_github(folder, Told(), url=url)
    assert len(storage.ranges) == 1
    assert len(files(folder)["plain.txt"]) == 10**6


def test_other_counts_than_the_published_ones_are_told(loopback: Loopback, folder: Path) -> None:
    fetch_github(folder, Told(), url=loopback(Storage()))
    assert compare_with_published(check_dataset(folder)) == (
        "there are 2 photos; the published edition has 5,756",
        "there are 2 rows; the published edition has 5,403",
    )


# ------------------------------------------------------------------------------------------------ the real program


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clothing_classifier", "data", "fetch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_part(folder: Path, size: int) -> None:
    deadline = time.monotonic() + 60
    while sum(len(content) for name, content in files(folder.parent).items() if name.endswith(".part")) < size:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT] if os.name == "posix" else [])
def test_a_download_that_is_stopped_goes_on(loopback: Loopback, folder: Path, number: signal.Signals) -> None:
    end = threading.Event()
    storage = Storage(cut=3000, wait=end)
    url = loopback(storage)
    process = start("github", folder, "--url", url)
    wait_for_part(folder, 3000)
    process.send_signal(number)
    code, out, err = finish(process)
    end.set()
    assert out == ""
    if number == signal.SIGINT:
        assert code == 130
        assert err == "Stopped. What has arrived is kept; run the command again to go on.\n"
    assert not folder.exists()
    code, out, err = finish(start("github", folder, "--url", url))
    assert code == 0, err
    assert storage.ranges == [None, "bytes=3000-"]
    assert "Used      2 photos of 2 classes" in out
    assert err.splitlines() == [
        "Warning: there are 2 photos; the published edition has 5,756",
        "Warning: there are 2 rows; the published edition has 5,403",
    ]


def test_a_failure_is_one_line_and_code_1(loopback: Loopback, folder: Path) -> None:
    def nothing(handler: BaseHTTPRequestHandler) -> None:
        handler.send_error(404)

    url = loopback(nothing)
    assert finish(start("github", folder, "--url", url)) == (
        1,
        "",
        f"Error: {url}: there is no such file on the server (404); try --url\n",
    )


# ---------------------------------------------------------------------------------------------------------- Kaggle

KAGGLE = {
    "images.csv": ROWS.encode(),
    "images_original/a.jpg": photo(0, 1200),
    "images_original/b.jpg": photo(1, 1200),
    "images_compressed/a.jpg": photo(2),
    "images_compressed/b.jpg": photo(3),
}


class Kaggle:
    """What kagglehub asks of Kaggle: which version there is, and its archive by way of a redirect to a storage."""

    def __init__(self, storage: Respond) -> None:
        self.storage = storage
        self.asked: list[str] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"] or 0))
        path = handler.path.removeprefix("http://localhost")  # kagglehub takes this server for its proxy
        self.asked.append(path)
        if path == "/storage":
            self.storage(handler)
            return
        request = json.loads(body)
        assert (request["ownerSlug"], request["datasetSlug"]) == ("agrigorev", "clothing-dataset-full")
        reply = json.dumps({"currentVersionNumber": 3}).encode() if path.endswith("/GetDataset") else b""
        handler.send_response(200 if reply else 302)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(reply)))
        handler.send_header("Location", "http://localhost/storage")
        handler.end_headers()
        handler.wfile.write(reply)


@pytest.fixture
def through_kaggle(loopback: Loopback, tmp_path: Path) -> Callable[[Respond, Path], tuple[int, str, str]]:
    """A function that fetches from a stand-in for Kaggle into a folder, with the real program and kagglehub."""
    pytest.importorskip("kagglehub", reason="needs the extra train")

    def fetch(respond: Respond, folder: Path) -> tuple[int, str, str]:
        (tmp_path / "home").mkdir(exist_ok=True)
        environment = {"HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home")}
        environment |= {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "KAGGLE_API_TOKEN": "", "KAGGLE_USERNAME": ""}
        url = loopback(respond)
        environment |= {"HTTP_PROXY": url, "http_proxy": url, "NO_PROXY": "", "no_proxy": ""}
        return finish(start("kaggle", folder, **environment))

    return fetch


ThroughKaggle = Callable[[Respond, Path], tuple[int, str, str]]


def test_kaggle_arrives_and_goes_on_where_it_broke_off(
    through_kaggle: ThroughKaggle, folder: Path, tmp_path: Path
) -> None:
    storage = Storage(pack(KAGGLE), cut=1_500_000)
    kaggle = Kaggle(storage)
    code, out, err = through_kaggle(kaggle, folder)
    assert code == 0, err
    assert files(folder) == KAGGLE
    assert list(folder.parent.iterdir()) == [folder]
    assert "bytes=1048576-" in storage.ranges, "kagglehub writes a MiB at a time"
    assert "the connection to Kaggle is lost" in err
    assert out.startswith(f"Folder    {folder}\nEdition   Kaggle (compressed photos)\n"), "the report stands alone"
    assert not (tmp_path / "home" / ".cache").exists(), "kagglehub's own cache does not keep a second copy"


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "Kaggle refuses the download"), (404, "Kaggle answered 404"), (401, "KAGGLE_API_TOKEN")],
)
def test_kaggles_refusals_are_explained(through_kaggle: ThroughKaggle, folder: Path, status: int, message: str) -> None:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    code, out, err = through_kaggle(refuse, folder)
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not folder.exists()


def test_an_archive_from_kaggle_that_is_none_is_told(through_kaggle: ThroughKaggle, folder: Path) -> None:
    code, _, err = through_kaggle(Kaggle(Storage(b"<html>Sign in to the hotel's network</html>")), folder)
    assert code == 1
    assert "Kaggle: what arrived is not a whole archive" in err.splitlines()[-1]
    assert list(folder.parent.iterdir()) == []


def test_a_folder_that_kagglehub_finds_elsewhere_is_copied(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Kaggle's own machines nothing is downloaded."""
    elsewhere = tmp_path / "input"
    for name, content in KAGGLE.items():
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_bytes(content)
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=lambda handle: str(elsewhere)))
    monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    fetch_kaggle(folder, Told())
    assert files(folder) == files(elsewhere) == KAGGLE
    assert "KAGGLEHUB_CACHE" not in os.environ


def test_kagglehub_that_is_missing_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DatasetError, match=r'pip install "clothing-classifier\[train\]"'):
        fetch_kaggle(folder, Told())
