"""Weights from a hub on this machine, by programs of their own: the hub's library reads its settings when imported."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")

import timm
import torch
from safetensors.torch import save

from clothing_classifier.training.weights import load_weights

if TYPE_CHECKING:
    from hub import LARGE, Hub, Repository
else:
    spec = importlib.util.spec_from_file_location("hub", Path(__file__).with_name("hub.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    Hub, Repository, LARGE = module.Hub, module.Repository, module.LARGE

CONVNEXT, RESNET, SMALL = "convnext_tiny", "resnet50", "test_resnet"
NAMES = {
    CONVNEXT: "timm/convnext_tiny.in12k_ft_in1k",
    RESNET: "timm/resnet50.a1_in1k",
    SMALL: "timm/test_resnet.r160_in1k",
}

# What a user's program does, told what to load by lines on standard input. Waiting is noted and not done.
PROGRAM = """
import hashlib, json, sys, time, warnings
import timm, torch, huggingface_hub
from clothing_classifier.training.weights import WeightsError, load_weights

waited = []
time.sleep = waited.append
warnings.simplefilter("error")
for line in sys.stdin:
    task = json.loads(line)
    for name, value in task["constants"].items():
        setattr(huggingface_hub.constants, name, value)
    waited.clear()
    torch.manual_seed(0)
    form = dict(features_only=True) if task["features_only"] else dict(num_classes=0, global_pool="")
    features = timm.create_model(task["backbone"], **form)
    try:
        answer = load_weights(features, task["backbone"], task["choice"]).to_dict()
    except WeightsError as error:
        answer = {"error": str(error)}
    content = b"".join(tensor.numpy().tobytes() for tensor in features.state_dict().values())
    answer |= {"digest": hashlib.sha256(content).hexdigest(), "waited": len(waited)}
    print(json.dumps(answer), flush=True)
"""


class Client:
    """A program that loads weights, in an environment of its own."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.cache = home / "hub"
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("HF_")}
        settings = {"HF_HOME": str(home), "NO_PROXY": "*", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        self.errors = home / f"errors-{os.urandom(4).hex()}.txt"
        with self.errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**kept, **settings, **environment},
            )

    def load(
        self, backbone: str, choice: str = "hub", *, features_only: bool = False, **constants: Any
    ) -> dict[str, Any]:
        """Return the origin and a digest of the parameters, or the error."""
        task = {"backbone": backbone, "choice": choice, "features_only": features_only, "constants": constants}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.errors.read_text()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def fail(self, backbone: str, choice: str = "hub", **constants: Any) -> str:
        """Return the message of the error, which names the backbone, the file, and what to do instead."""
        message = str(self.load(backbone, choice, **constants)["error"])
        assert message.startswith((backbone, NAMES[backbone]))
        assert NAMES[backbone] in message
        assert "or give a safetensors file with --weights FILE" in message
        assert "\n" not in message
        return message

    def forget(self, name: str) -> None:
        """Take a repository out of the cache."""
        rmtree(self.folder(name), ignore_errors=True)

    def folder(self, name: str) -> Path:
        """Return where the cache keeps a repository."""
        return self.cache / f"models--{name.replace('/', '--')}"

    def kept(self, name: str) -> list[Path]:
        """Return the weights that the cache holds, wherever it keeps them."""
        files = [path for path in self.folder(name).rglob("*") if path.is_file() and not path.is_symlink()]
        return [path for path in files if path.stat().st_size > LARGE // 4]

    def close(self) -> None:
        """End the program."""
        self._process.communicate(timeout=60)


@contextmanager
def program(home: Path, **environment: str) -> Iterator[Client]:
    client = Client(home, environment)
    try:
        yield client
    finally:
        client.close()


def make_weights(backbone: str, seed: int = 0) -> bytes:
    """Return a safetensors file as timm publishes one: the whole network's parameters, classifier included."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        state = timm.create_model(backbone).state_dict()
    return save({name: torch.randn(t.shape).to(t.dtype).contiguous() for name, t in state.items()})


README = b"---\nlicense: mit\ntags: [timm]\n---\n# A model card\n"


@pytest.fixture(scope="module")
def weights() -> dict[str, bytes]:
    return {backbone: make_weights(backbone) for backbone in NAMES}


@pytest.fixture(scope="module")
def hub(weights: dict[str, bytes]) -> Iterator[Hub]:
    with Hub() as hub:
        for backbone in (CONVNEXT, RESNET):
            hub.put(NAMES[backbone], publish(weights[backbone]))
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(hub: Hub, home: Path) -> Iterator[Client]:
    with program(home, HF_ENDPOINT=hub.address) as client:
        yield client


@pytest.fixture
def client(online: Client, hub: Hub) -> Client:
    """A program whose cache does not hold the small backbone yet."""
    online.forget(NAMES[SMALL])
    hub.requests.clear()
    return online


def publish(content: bytes, **behaviour: Any) -> Repository:
    return Repository({"config.json": b"{}", "README.md": README, "model.safetensors": content}, **behaviour)


def digest_from_file(backbone: str, content: bytes, folder: Path, features_only: bool = False) -> str:
    """Return the digest that the program gives of parameters, here of those from a file."""
    (folder / "some.safetensors").write_bytes(content)
    form: dict[str, Any] = {"features_only": True} if features_only else {"num_classes": 0, "global_pool": ""}
    features = timm.create_model(backbone, **form)
    load_weights(features, backbone, str(folder / "some.safetensors"))
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in features.state_dict().values())).hexdigest()


@pytest.mark.parametrize("backbone", [CONVNEXT, RESNET])
def test_weights_are_found_and_loaded_and_then_kept(
    backbone: str, client: Client, hub: Hub, weights: dict[str, bytes], tmp_path: Path
) -> None:
    first = client.load(backbone)
    repository = hub.repositories[NAMES[backbone]][-1]
    assert first["source"] == f"hub: {NAMES[backbone]}@{repository.commit}"
    assert first["licence"] == "mit"
    assert first["sha256"] == hashlib.sha256(weights[backbone]).hexdigest()
    assert first["fresh"] == []
    assert first["digest"] == digest_from_file(backbone, weights[backbone], tmp_path)
    assert hub.downloads() == [f"GET storage {NAMES[backbone]}/model.safetensors from 0"]

    hub.requests.clear()
    assert client.load(backbone) == first
    assert hub.downloads() == []
    stages = client.load(backbone, features_only=True)
    assert stages["digest"] == digest_from_file(backbone, weights[backbone], tmp_path, features_only=True)
    assert stages["fresh"] == []
    assert "%|" not in client.errors.read_text(), "no progress bar where nobody looks"


def test_the_cache_is_enough(client: Client, hub: Hub, home: Path, weights: dict[str, bytes], tmp_path: Path) -> None:
    """Offline by choice, and with a hub that is gone."""
    hub.put(NAMES[SMALL], publish(weights[SMALL]))
    expected = client.load(SMALL)
    hub.requests.clear()
    with program(home, HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="1") as offline:
        assert offline.load(SMALL) == expected
        # What is damaged is not used, and offline it cannot be replaced.
        [blob] = offline.kept(NAMES[SMALL])
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
        message = offline.fail(SMALL)
        assert "HF_HUB_OFFLINE forbids to download it (before: " in message
        assert "did not have the digest that the hub states, and is deleted" in message
        assert offline.kept(NAMES[SMALL]) == []
        message = offline.fail(SMALL)
        assert f"is not in the cache ({home / 'hub'}), and HF_HUB_OFFLINE forbids to download it" in message
        assert "unset HF_HUB_OFFLINE" in message
    assert hub.requests == []

    assert client.load(SMALL) == expected
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with program(home, HF_ENDPOINT=address) as alone:
            assert alone.load(SMALL) == expected
            alone.forget(NAMES[SMALL])
            message = alone.fail(SMALL)
            assert f"there is no connection to the hub at {address} (ConnectError" in message
            assert "set HF_ENDPOINT to a hub within reach" in message
            assert alone.load(SMALL, str(write(tmp_path / "given.safetensors", weights[SMALL])))["fresh"] == []


@pytest.mark.parametrize(
    ("faults", "states_size", "waits", "downloads"),
    [
        (["flipped"], True, 1, 2),
        (["short"], True, 1, 2),
        (["short"], False, 1, 2),
        ([500, 503], True, 2, 3),
        (["cut off"], True, 1, 2),
    ],
    ids=["flipped", "short", "short, and nobody says so", "failing twice", "cut off"],
)
def test_a_fault_that_passes_is_got_over(
    faults: list[int | str],
    states_size: bool,
    waits: int,
    downloads: int,
    client: Client,
    hub: Hub,
    weights: dict[str, bytes],
    tmp_path: Path,
) -> None:
    hub.put(NAMES[SMALL], publish(weights[SMALL], faults=faults, states_size=states_size))
    loaded = client.load(SMALL, DOWNLOAD_CHUNK_SIZE=LARGE)
    assert loaded["digest"] == digest_from_file(SMALL, weights[SMALL], tmp_path)
    assert loaded["waited"] == waits
    assert len(hub.downloads()) == downloads
    # A download that was cut off goes on where it ended; one that is damaged begins again.
    assert hub.downloads()[-1].endswith("from 0") is (faults != ["cut off"])
    assert [path.read_bytes() for path in client.kept(NAMES[SMALL])] == [weights[SMALL]]


@pytest.mark.parametrize(
    ("fault", "states_size", "said"),
    [
        ("flipped", True, "did not have the digest that the hub states, and is deleted"),
        ("short", False, "did not have the digest that the hub states, and is deleted"),
        ("short", True, "Consistency check failed"),
        (503, True, "answered 503"),
    ],
    ids=["flipped", "short, and nobody says so", "short", "failing"],
)
def test_a_fault_that_stays_is_refused_and_nothing_of_it_is_kept(
    fault: int | str, states_size: bool, said: str, client: Client, hub: Hub, weights: dict[str, bytes]
) -> None:
    hub.put(NAMES[SMALL], publish(weights[SMALL], faults=itertools.repeat(fault), states_size=states_size))
    message = client.fail(SMALL)
    assert "did not arrive (" in message
    assert said in message
    assert "try again later" in message
    assert len(hub.downloads()) == 3
    assert client.kept(NAMES[SMALL]) == []
    hub.put(NAMES[SMALL], publish(weights[SMALL]))
    assert client.load(SMALL)["fresh"] == []


def test_what_is_damaged_in_the_cache_is_downloaded_again(client: Client, hub: Hub, weights: dict[str, bytes]) -> None:
    hub.put(NAMES[SMALL], publish(weights[SMALL]))
    first = client.load(SMALL)
    [blob] = client.kept(NAMES[SMALL])
    blob.write_bytes(blob.read_bytes()[: LARGE // 2])
    assert client.load(SMALL) == first | {"waited": 1}
    assert [path.read_bytes() for path in client.kept(NAMES[SMALL])] == [weights[SMALL]]


def test_a_cache_without_links_is_checked_too(client: Client, hub: Hub, weights: dict[str, bytes]) -> None:
    hub.put(NAMES[SMALL], publish(weights[SMALL], faults=["flipped"]))
    try:
        loaded = client.load(SMALL, HF_HUB_DISABLE_SYMLINKS=True)
        assert (loaded["fresh"], loaded["waited"]) == ([], 1)
        assert not any(path.is_symlink() for path in client.folder(NAMES[SMALL]).rglob("*"))
        hub.requests.clear()
        assert client.load(SMALL) == loaded | {"waited": 0}
        assert hub.downloads() == []
        assert client.load(SMALL, HF_HUB_OFFLINE=True) == loaded | {"waited": 0}
    finally:
        client.load(SMALL, HF_HUB_DISABLE_SYMLINKS=False, HF_HUB_OFFLINE=False)


@pytest.mark.parametrize(
    ("refusals", "said"),
    [
        (["gated"], "is for accounts that have accepted its terms (403); accept them at {hub}/{name} and log in"),
        ([401], "is not there, or not for everyone: the hub at {hub} answered 401; log in with `hf auth login`"),
        ([403], "is not there, or not for everyone: the hub at {hub} answered 403; log in with `hf auth login`"),
        ([404], "is not there, or not for everyone: the hub at {hub} answered 404; log in"),
        (itertools.repeat(503), "did not arrive (the hub at {hub} answered 503); try again later"),
        (itertools.repeat(418), "cannot be had: the hub at {hub} answered 418; try again later"),
        (["stranger"], "cannot be had, because what answers at {hub} is no such hub (FileMetadataError: "),
    ],
    ids=["gated", "private", "forbidden", "absent", "failing", "odd", "a stranger"],
)
def test_a_refusal_is_explained(
    refusals: list[int | str], said: str, client: Client, hub: Hub, weights: dict[str, bytes]
) -> None:
    hub.put(NAMES[SMALL], publish(weights[SMALL], refusals=refusals))
    message = client.fail(SMALL)
    assert f"{SMALL}: {NAMES[SMALL]}/model.safetensors " in message
    assert said.format(hub=hub.address, name=NAMES[SMALL]) in message
    assert hub.downloads() == []


def test_a_hub_that_fails_for_a_while_is_waited_for(client: Client, hub: Hub, weights: dict[str, bytes]) -> None:
    hub.put(NAMES[SMALL], publish(weights[SMALL], refusals=[503, 502, 429]))
    loaded = client.load(SMALL)
    assert loaded["fresh"] == []
    assert loaded["waited"] >= 2


def test_a_hub_without_the_repository_is_explained(client: Client, hub: Hub) -> None:
    hub.repositories.pop(NAMES[SMALL], None)
    assert f"is not there, or not for everyone: the hub at {hub.address} answered 401" in client.fail(SMALL)


def test_a_pickle_is_never_loaded(client: Client, hub: Hub, weights: dict[str, bytes]) -> None:
    hub.put(NAMES[SMALL], Repository({"README.md": README, "pytorch_model.bin": weights[SMALL]}))
    assert "has the repository without that file, and nothing but safetensors is loaded" in client.fail(SMALL)
    assert not any("pytorch_model.bin" in request for request in hub.requests)
    hub.put(NAMES[SMALL], publish(b"\x80\x02}q\x00." * LARGE))
    assert "not a safetensors file, or damaged" in client.load(SMALL)["error"]


def test_another_architecture_is_refused(client: Client, hub: Hub, weights: dict[str, bytes]) -> None:
    from safetensors.torch import load

    def refused(content: bytes) -> str:
        client.forget(NAMES[SMALL])
        hub.put(NAMES[SMALL], publish(content))
        answer = client.load(SMALL)
        assert answer["digest"] == untouched, "what is refused leaves no trace in the network"
        return str(answer["error"])

    hub.repositories.pop(NAMES[SMALL], None)
    untouched = client.load(SMALL)["digest"]
    given = load(weights[SMALL])
    name = f"{NAMES[SMALL]}/model.safetensors"
    assert refused(make_weights("test_efficientnet")).startswith(f"{name}: ")
    wide = given | {"layer1.0.conv1.weight": torch.zeros(1, 2, 3, 4)}
    assert f"{name}: layer1.0.conv1.weight has the shape (1, 2, 3, 4), but {SMALL} needs (" in refused(save(wide))
    deep = given | {"layer4.7.conv1.weight": torch.zeros(8)}
    assert f"{name}: has 1 parameters more than {SMALL}, such as layer4.7.conv1.weight" in refused(save(deep))
    part = {key: tensor for key, tensor in given.items() if not key.startswith("layer4.")}
    assert f"{name}: lacks 3 parameters of {SMALL}, such as layer4.0." in refused(save(part))


def test_a_commit_is_loaded_again_when_the_repository_has_moved_on(
    client: Client, hub: Hub, weights: dict[str, bytes]
) -> None:
    old, new = publish(weights[SMALL]), publish(make_weights(SMALL, seed=1))
    hub.put(NAMES[SMALL], old)
    first = client.load(SMALL)
    hub.put(NAMES[SMALL], old, new)
    second = client.load(SMALL)
    assert second["source"] == f"hub: {NAMES[SMALL]}@{new.commit}"
    assert second["sha256"] != first["sha256"]
    client.forget(NAMES[SMALL])
    assert client.load(SMALL, f"hub@{old.commit}") == first
    hub.requests.clear()
    assert client.load(SMALL, f"hub@{old.commit}") == first
    assert hub.requests == [], "a commit never changes, so nobody needs to be asked"
    assert f"has no revision {'0' * 40} on the hub at {hub.address}" in client.fail(SMALL, f"hub@{'0' * 40}")


def test_the_licence_is_the_hubs_or_else_what_timm_knows(client: Client, hub: Hub, weights: dict[str, bytes]) -> None:
    hub.put(NAMES[SMALL], Repository({"model.safetensors": weights[SMALL]}))
    assert client.load(SMALL)["licence"] == "apache-2.0"
    for readme in (b"# No head", b"---\n- a list\n---\n", b"---\nlicense: [\n---\n", b"\xff"):
        client.forget(NAMES[SMALL])
        hub.put(NAMES[SMALL], Repository({"model.safetensors": weights[SMALL], "README.md": readme}))
        assert client.load(SMALL)["licence"] == "apache-2.0"


def test_a_cache_that_cannot_be_written_is_explained(
    client: Client, hub: Hub, weights: dict[str, bytes], tmp_path: Path
) -> None:
    hub.put(NAMES[SMALL], publish(weights[SMALL]))
    (tmp_path / "file").write_bytes(b"")
    try:
        message = client.fail(SMALL, HF_HUB_CACHE=str(tmp_path / "file" / "cache"))
    finally:
        assert "error" not in client.load(SMALL, HF_HUB_CACHE=str(client.cache))
    assert "cannot be kept: " in message
    assert str(tmp_path / "file") in message
    assert "set HF_HOME to another folder" in message


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
