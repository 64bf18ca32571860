"""Keys given twice: whatever the cheap proof says, it says what reading every pair says."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.errors import Fault, InvalidRequest
from models.payload.duplicate_keys import REASON, KnownKeys, keys_of
from models.payload.json_payload import JsonPayloads, request_type
from models.registry import FAMILIES

CARDS = {card.task: card for family in FAMILIES for card in family.cards}
VIEWS = ",".join(["5"] * 56)


class Leaf(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""
    names: list[str] = []


class Flat(msgspec.Struct, forbid_unknown_fields=True):
    instances: list[Leaf]
    explain: bool = False


class Branch(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""
    new: list[Leaf] | msgspec.UnsetType = msgspec.UNSET


class Deep(msgspec.Struct, forbid_unknown_fields=True):
    instances: list[Branch]
    explain: bool = False


STRINGS = st.sampled_from(["", "a", "text", "names", "instances", "{", "}", '"', '"text":', "\\", "é", "explain", ":"])


@st.composite
def spelled(draw: Any, key: str) -> str:
    """Return a key in quotes, now and then with a letter escaped."""
    if draw(st.integers(0, 9)):
        return json.dumps(key)
    position = draw(st.integers(0, len(key) - 1))
    return f'"{key[:position]}\\u{ord(key[position]):04x}{key[position + 1 :]}"'


@st.composite
def objects(draw: Any, members: dict[str, Any]) -> str:
    """Return an object with keys drawn with repetition, and white space."""
    space = st.sampled_from(["", " ", "\n"])
    names = draw(st.lists(st.sampled_from(sorted(members)), max_size=3))
    pairs = [f"{draw(spelled(name))}{draw(space)}:{draw(space)}{draw(members[name])}" for name in names]
    return "{" + ",".join(pairs) + "}"


def arrays(of: Any) -> Any:
    return st.lists(of, max_size=3).map(lambda parts: "[" + ",".join(parts) + "]")


TEXTS = STRINGS.map(json.dumps)
LEAVES = objects({"text": TEXTS, "names": arrays(TEXTS)})
BRANCHES = objects({"text": TEXTS, "new": arrays(LEAVES)})
BOOLS = st.sampled_from(["true", "false"])


def plainly(body: bytes) -> bool:
    """Return whether any object has a key twice, by reading every pair."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len({key for key, _ in pairs}) < len(pairs)

    json.loads(body, object_pairs_hook=look)
    return found


def check(document: type, text: str) -> None:
    body = text.encode()
    try:
        decoded: Any = msgspec.json.decode(body, type=document)
    except msgspec.ValidationError:
        return
    repeated = keys_of(document).find_repeated(body, len(decoded.instances))
    assert (repeated is not None) == plainly(body), text


@settings(max_examples=600, deadline=None)
@given(objects({"instances": arrays(LEAVES), "explain": BOOLS}))
@example('{"instances":[{"text":"{","text":"x"}]}')
@example('{"instances":[{"text":"a"}],"instances":[{"text":"b"}]}')
def test_flat_documents(text: str) -> None:
    """Objects side by side: braces and key names in texts, escapes, white space, keys in any order."""
    check(Flat, text)


@settings(max_examples=600, deadline=None)
@given(objects({"instances": arrays(BRANCHES), "explain": BOOLS}))
@example('{"instances":[{"new":[{"text":"a"}],"new":[{"text":"b"}]}]}')
def test_nested_documents(text: str) -> None:
    """Objects in objects: the same name on two levels is no repetition."""
    check(Deep, text)


def test_keys_of_the_cards() -> None:
    """Every field of every request is looked for, however it is wrapped."""
    found = {task: keys_of(request_type(card, 9)) for task, card in CARDS.items()}
    outer = (b'"instances"', b'"explain"', b'"outlier"')
    assert found == {
        "forecast": KnownKeys(outer, (b'"views"', b'"horizon"'), True),
        "tag": KnownKeys(outer, (b'"text"', b'"tokens"'), True),
        "classify": KnownKeys(outer, (b'"image"', b'"pixels"'), True),
        "label_nodes": KnownKeys(outer, (b'"words"', b'"edges"', b'"new"', b'"node_ids"', b'"cites"'), False),
        "label_graph": KnownKeys(outer, (b'"atoms"', b'"bonds"'), True),
    }


@pytest.mark.parametrize(
    ("task", "text", "loc"),
    [
        ("forecast", f'{{"instances":[{{"views":[{VIEWS}],"views":[{VIEWS}]}}]}}', ("instances", 0, "views")),
        ("forecast", f'{{"instances":[{{"views":[{VIEWS}],"view\\u0073":[{VIEWS}]}}]}}', ("instances", 0, "views")),
        ("tag", '{"instances":[{"text":"a"},{"text":"\\\\u0041","text":"b"}]}', ("instances", 1, "text")),
        ("tag", '{"explain":true,"instances":[{"text":"a"}],"explain":false}', ("explain",)),
        ("label_nodes", '{"instances":[{"new":[{"words":[1]},{"words":[],"words":[1]}]}]}',
         ("instances", 0, "new", 1, "words")),
    ],
)  # fmt: skip
def test_refusal(task: str, text: str, loc: tuple[Any, ...]) -> None:
    """A request with a key given twice is refused at its place."""
    with pytest.raises(InvalidRequest) as caught:
        JsonPayloads(CARDS[task], "x:1", max_instances=9).read(text.encode())
    assert caught.value.faults == (Fault(loc, REASON),)


def test_thousands_of_digits() -> None:
    """The slow look reads numbers that Python alone would refuse."""
    text = f'{{"instances":[{{"views":[{VIEWS},0.{"0" * 5000}],"\\u0068orizon":3}}]}}'
    assert len(JsonPayloads(CARDS["forecast"], "x:1", max_instances=9).read(text.encode()).instances) == 1
