from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from clothing_classifier import card as card_room
from clothing_classifier.card import (
    CARD_KEY,
    DIGEST_KEY,
    FORMAT_VERSION,
    ModelCard,
    ModelError,
    read_card,
    read_model,
    seal,
    verify,
)
from clothing_classifier.resizing import Resizing

Pack = Callable[[onnx.ModelProto, str], bytes]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), values, max_size=3)
names = st.text(min_size=1).filter(lambda text: text.isprintable() and bool(text.strip()))
sides = st.integers(1, 4096)
cards = st.builds(
    ModelCard,
    name=st.text(),
    labels=st.lists(names, min_size=2, max_size=20, unique=True).map(tuple),
    resizing=st.builds(
        Resizing, sides, sides, st.sampled_from(["pad", "squash"]), st.tuples(*[st.integers(0, 255)] * 3)
    ),
    threshold=st.floats(0, 1),
    temperature=st.floats(1e-3, 1e3),
    promise=objects,
    metrics=objects,
    data=objects,
    training=objects,
    weights=objects,
    licence=st.text(),
    version=st.text(),
    commit=st.none() | st.text(),
    created=st.text(),
)


def test_joiners_and_no_break_spaces_belong_to_names(tiny_card: ModelCard) -> None:
    labels = ("نیم\u200cتنه", "👩\u200d🎤", "zori\u00a0x")
    assert ModelCard.from_json(dataclasses.replace(tiny_card, labels=labels).to_json()).labels == labels


@given(cards)
def test_a_card_survives_json(card: ModelCard) -> None:
    text = card.to_json()
    assert text.isascii()
    assert ModelCard.from_json(text) == card


def test_unknown_keys_are_passed_over(tiny_card: ModelCard) -> None:
    text = json.dumps(json.loads(tiny_card.to_json()) | {"colour": "mauve"})
    assert ModelCard.from_json(text) == tiny_card


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ModelCard)])
def test_a_missing_field_is_named(tiny_card: ModelCard, field: str) -> None:
    known = json.loads(tiny_card.to_json())
    del known[field]
    with pytest.raises(ValueError, match=f"^{field} is missing$"):
        ModelCard.from_json(json.dumps(known))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 3),
        ("labels", "red"),
        ("labels", ["red"]),
        ("labels", ["red", "red"]),
        ("labels", ["red", ""]),
        ("labels", ["red", 1]),
        ("labels", ["red", "a\nb"]),
        ("labels", ["red", "\x1b[2J"]),
        ("labels", ["red", "\udc80"]),
        ("labels", ["red", "a\u200bb"]),
        ("labels", ["red", "\u200d"]),
        ("resizing", [12, 8]),
        ("threshold", 1.01),
        ("threshold", "0.5"),
        ("threshold", True),
        ("temperature", 0),
        ("temperature", None),
        ("promise", []),
        ("metrics", None),
        ("data", "d"),
        ("training", 1),
        ("weights", False),
        ("licence", None),
        ("version", 1),
        ("commit", 1),
        ("created", 0),
        ("format", "1"),
        ("format", 0),
    ],
)
def test_a_wrong_field_is_named(tiny_card: ModelCard, field: str, value: Any) -> None:
    text = json.dumps(json.loads(tiny_card.to_json()) | {field: value})
    with pytest.raises(ValueError, match=f"^{field} must be "):
        ModelCard.from_json(text)


def test_numbers_that_are_none_are_refused(tiny_card: ModelCard) -> None:
    for field in ("threshold", "temperature"):
        for value in (math.inf, math.nan):
            with pytest.raises(ValueError, match=f"^{field} must be "):
                dataclasses.replace(tiny_card, **{field: value})  # type: ignore[arg-type]
    known = json.loads(tiny_card.to_json())
    with pytest.raises(ValueError, match=r"^NaN is not JSON$"):
        ModelCard.from_json(json.dumps(known | {"metrics": {"accuracy": math.nan}}))
    with pytest.raises(ValueError, match=r"^temperature must be "):
        ModelCard.from_json(tiny_card.to_json().replace('"temperature": 1.5', '"temperature": 1e999'))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"threshold": NaN}', "[" * 100_000])
def test_text_that_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        ModelCard.from_json(text)


def test_a_card_of_no_json_value_is_not_written(tiny_card: ModelCard) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(tiny_card, metrics={"accuracy": float("nan")}).to_json()


def test_the_seal_is_the_digest_of_the_file_with_zeros_in_its_place(tiny_model: Path) -> None:
    content = tiny_model.read_bytes()
    entries = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    digest = entries[DIGEST_KEY].encode()
    assert content.count(digest) == 1
    assert hashlib.sha256(content.replace(digest, b"0" * 64)).hexdigest().encode() == digest


def test_only_blank_seals_are_filled_in(tiny_model: Path, tiny_graph: onnx.ModelProto) -> None:
    for content in (tiny_graph.SerializeToString(), tiny_model.read_bytes()):
        with pytest.raises(ValueError, match="64 zeros"):
            seal(content)


def test_any_flipped_bit_is_found(tiny_model: Path) -> None:
    content = tiny_model.read_bytes()
    verify(content, "tiny.onnx")
    for position in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            with pytest.raises(ModelError, match=r"^tiny\.onnx: "):
                verify(bytes(damaged), "tiny.onnx")


def test_damage_in_the_weights_is_called_damage(tiny_model: Path, tiny_graph: onnx.ModelProto) -> None:
    weight = tiny_graph.graph.initializer[1].raw_data
    content = tiny_model.read_bytes()
    assert content.count(weight) == 1
    with pytest.raises(ModelError, match=r"is damaged .* copy or download it again"):
        verify(content.replace(weight, weight[::-1]), "tiny.onnx")


@given(data=st.data())
def test_a_cut_or_lengthened_file_is_found(tiny_model: Path, data: st.DataObject) -> None:
    content = tiny_model.read_bytes()
    other = data.draw(
        st.integers(0, len(content) - 1).map(lambda end: content[:end])
        | st.binary(min_size=1).map(lambda tail: content + tail)
    )
    with pytest.raises(ModelError, match=r"^tiny\.onnx: "):
        verify(other, "tiny.onnx")


@given(st.binary())
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"^other\.bin: .*(model file|again)"):
        read_card(content, "other.bin")


def test_what_is_not_a_model_of_this_project_is_told_apart(tiny_graph: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="is empty"):
        verify(b"", "m")
    with pytest.raises(ModelError, match="is not an ONNX model"):
        verify(b"\xff\xd8\xff\xe0 a photo", "m")
    with pytest.raises(ModelError, match="is not a model file of this project"):
        verify(tiny_graph.SerializeToString(), "m")


def test_a_second_seal_is_refused(tiny_model: Path) -> None:
    model = onnx.load_from_string(tiny_model.read_bytes())
    model.metadata_props.append(onnx.StringStringEntryProto(key=DIGEST_KEY, value="0" * 64))
    with pytest.raises(ModelError, match="damaged"):
        verify(model.SerializeToString(), "m")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\0\0", "not a protobuf message"),
        (b"\xba\x80\x80\x80\x10\0", "not a protobuf message"),  # field 7, and a bit that does not fit into 32
        (b"\x08" + b"\x80" * 10 + b"\0", "number that does not end"),
        (b"\x72\2\x0a\5" + b"\x08\1" * 9, "ends early"),  # a key that is longer than its entry
        (b"\x73", "not a protobuf message of ONNX"),
    ],
)
def test_what_other_readers_may_read_in_another_way_is_no_model(message: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        card_room._metadata(message)


def test_an_entry_without_a_value_is_empty() -> None:
    message = b"\x72\5\x0a\3abc"
    assert message[card_room._metadata(message)["abc"]] == b""


def test_no_entry_may_be_there_twice(tiny_graph: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny_graph)
    for key, value in ((DIGEST_KEY, "0" * 64), (CARD_KEY, "{}"), (CARD_KEY, "{}")):
        model.metadata_props.add(key=key, value=value)
    with pytest.raises(ValueError, match="card' is there twice"):
        seal(model.SerializeToString())


def test_a_newer_format_is_named_even_if_its_card_has_other_fields(
    tiny_graph: onnx.ModelProto, pack_model: Pack
) -> None:
    content = pack_model(tiny_graph, json.dumps({"format": FORMAT_VERSION + 1, "labels": {"en": "red"}}))
    with pytest.raises(ModelError, match=r"^m: was made by a newer version .*install a newer version of this package$"):
        read_card(content, "m")


def test_a_card_that_is_not_valid_is_refused(
    tiny_card: ModelCard, tiny_graph: onnx.ModelProto, pack_model: Pack
) -> None:
    text = json.dumps(json.loads(tiny_card.to_json()) | {"threshold": 2})
    with pytest.raises(ModelError, match=r"^m: its card is not valid: threshold must be"):
        read_card(pack_model(tiny_graph, text), "m")
    model = onnx.load_from_string(pack_model(tiny_graph, "{}"))
    (entry,) = (entry for entry in model.metadata_props if entry.key == CARD_KEY)
    model.metadata_props.remove(entry)
    model.metadata_props[0].value = "0" * 64
    with pytest.raises(ModelError, match=r"^m: has no card"):
        read_card(seal(model.SerializeToString()), "m")


def _external() -> TensorProto:
    tensor = TensorProto(name="stolen", data_type=TensorProto.UINT8, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.txt")
    return tensor


def _in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(_external())


def _in_sparse_initializer(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(_external())


def _in_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=_external()))


def _in_nested_graph(model: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "inner", [], [], [_external()])
    for _ in range(10):
        graph = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=graph)], "outer", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=graph))


def _in_function(model: onnx.ModelProto) -> None:
    model.functions.add().node.append(helper.make_node("Constant", [], ["c"], value=_external()))


@pytest.mark.parametrize(
    "hide", [_in_initializer, _in_sparse_initializer, _in_constant, _in_nested_graph, _in_function]
)
def test_a_model_that_would_read_other_files_is_refused(
    hide: Callable[[onnx.ModelProto], None], tiny_card: ModelCard, tiny_graph: onnx.ModelProto, pack_model: Pack
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny_graph)
    hide(model)
    with pytest.raises(ModelError, match=r"^m: keeps weights in other files, which is refused"):
        read_card(pack_model(model, tiny_card.to_json()), "m")


@pytest.mark.parametrize(
    ("location", "external"), [(b"\0", False), (b"\x80\0", False), (b"\1", True), (b"\x81\0", True), (b"\x80\1", True)]
)
def test_a_number_may_be_written_longer_than_it_needs(
    tiny_graph: onnx.ModelProto, location: bytes, external: bool
) -> None:
    tensor = b"\x70" + location  # its data_location
    graph = b"\x2a%c%s" % (len(tensor), tensor)
    more = b"\x3a%c%s" % (len(graph), graph)
    assert card_room._has_external_data(tiny_graph.SerializeToString() + more) == external


def test_the_search_for_external_data_knows_all_ways_to_a_tensor() -> None:
    messages, todo = {}, [onnx.ModelProto.DESCRIPTOR]
    while todo:
        message = todo.pop()
        if message.name not in messages:
            messages[message.name] = {f.number: f.message_type.name for f in message.fields if f.message_type}
            todo += [field.message_type for field in message.fields if field.message_type]
    reaching = {"TensorProto"}
    while more := {name for name, inner in messages.items() if reaching & {*inner.values()}} - reaching:
        reaching |= more
    ways = {
        name: {number: inner for number, inner in messages[name].items() if inner in reaching}
        for name in reaching - {"TensorProto"}
    }
    assert ways == card_room._NESTED
    assert TensorProto.DESCRIPTOR.fields_by_name["data_location"].number == card_room._DATA_LOCATION
    assert onnx.ModelProto.DESCRIPTOR.fields_by_name["metadata_props"].number == card_room._METADATA


def test_a_file_is_read_with_its_card(tiny_model: Path, tiny_card: ModelCard) -> None:
    found = read_model(str(tiny_model))
    assert (found.path, found.content, found.card) == (tiny_model, tiny_model.read_bytes(), tiny_card)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: cannot be read \(No such file or directory\); name a model"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is not a file"):
        read_model(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_model("a\0b")


@pytest.mark.skipif(os.name != "posix", reason="sockets and pipes in folders are of POSIX")
def test_what_is_larger_than_any_model_is_not_read(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = tiny_model.stat().st_size
    monkeypatch.setattr(card_room, "_LARGEST_FILE", size)
    assert read_model(tiny_model).card
    monkeypatch.setattr(card_room, "_LARGEST_FILE", size - 1)
    with pytest.raises(ModelError, match="is larger than any ONNX file can be"):
        read_model(tiny_model)


def test_what_is_not_a_regular_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.onnx")
        for name in ("pipe.onnx", "socket.onnx", "/dev/zero"):
            with pytest.raises(ModelError, match="is not a file"):
                read_model(name)


def test_the_model_that_ships_is_read_by_default(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.resources, "files", {"clothing_classifier": tmp_path}.__getitem__)
    with pytest.raises(ModelError, match=r"clothing\.onnx: .*the model that ships is not there"):
        read_model()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "clothing.onnx").write_bytes(tiny_model.read_bytes())
    assert read_model().card.name == "tiny"
