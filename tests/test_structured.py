"""Structured answers: what the model is told about a type, and what becomes of its answer."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import attrs
import pydantic
import pytest
import trio

from opencode_trio._json import Json
from opencode_trio._session.structured import WrongAnswerError, output_of, schema_of
from opencode_trio._swarm.task import AgentTask
from opencode_trio.client import AsyncOpenCodeClient
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.swarm import open_swarm


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Leaf:
    name: str
    weight: float = 0.0


@attrs.frozen
class Everything:
    count: int
    flag: bool
    colour: Colour
    size: Literal["s", "l"]
    leaves: list[Leaf]
    by_name: dict[str, int]
    maybe: Leaf | None = None
    pair: tuple[int, ...] = ()
    anything: Any = None
    note: Annotated[str, "what it means"] = ""


@attrs.frozen
class Node:
    value: int
    next: Node | None = None


GOOD = {
    "count": 1,
    "flag": True,
    "colour": "blue",
    "size": "s",
    "leaves": [{"name": "a", "weight": 1.5}],
    "by_name": {"x": 1},
    "maybe": {"name": "b"},
}


def test_an_attrs_class_has_a_schema_and_answers_become_instances():
    output = output_of(Everything)
    assert output.schema["required"] == ["count", "flag", "colour", "size", "leaves", "by_name"]
    answer = output.read(GOOD)
    assert answer == Everything(1, True, Colour.BLUE, "s", [Leaf("a", 1.5)], {"x": 1}, Leaf("b"))


@pytest.mark.parametrize(
    "change", [{"count": "1"}, {"colour": "green"}, {"more": 1}, {"leaves": [{}]}, {"size": "m"}]
)
def test_a_wrong_answer_says_what_is_wrong(change: Json):
    with pytest.raises(WrongAnswerError):
        output_of(Everything).read({**GOOD, **change})


def test_a_class_that_contains_itself():
    output = output_of(Node)
    assert output.read({"value": 1, "next": {"value": 2, "next": None}}) == Node(1, Node(2))
    with pytest.raises(WrongAnswerError):
        output.read({"value": 1, "next": {"value": "2"}})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (int | str, [1, "a"]),
        (float | str, [1.5, "a"]),
        (str | list[str], ["a", ["a"]]),
        (Literal["a"] | int, ["a", 1]),
        (Leaf | str, [Leaf("a", 1.0), "a"]),
        (bool | None, [True, None]),
    ],
)
def test_one_of_several_types(kind: Any, values: list[Any]):
    class_ = attrs.make_class("Made", {"value": attrs.field(type=kind)})
    output = output_of(class_)
    for value in values:
        answer = attrs.asdict(value) if attrs.has(type(value)) else value
        assert output.read({"value": answer}) == class_(value)
    with pytest.raises(WrongAnswerError):
        output.read({"value": {"no": "such thing"}})


def test_a_type_that_json_does_not_tell_apart_is_refused_before_it_is_asked_for():
    class_ = attrs.make_class("Made", {"value": attrs.field(type=list[int] | dict[str, int])})
    with pytest.raises(OpenCodeConfigError, match=r"Made: .* cannot be made of JSON"):
        output_of(class_)
    with pytest.raises(OpenCodeConfigError, match="for ever"):
        output_of({"$ref": "#"}).read(1)


def test_a_schema_is_taken_as_it_is():
    output = output_of({"type": "array", "items": {"type": "integer"}})
    assert output.read([1, 2]) == [1, 2]
    with pytest.raises(WrongAnswerError, match=r"\$\[1\]"):
        output.read([1, "2"])


@pytest.mark.parametrize("kind", [int, "x", {"type": "nonsense"}, object()])
def test_what_is_no_schema_is_refused(kind: Any):
    with pytest.raises(OpenCodeConfigError, match="output"):
        output_of(kind)


def test_what_json_cannot_say_is_refused():
    with pytest.raises(OpenCodeConfigError, match="no JSON schema"):
        schema_of(bytes)


# --- classes of every make ---------------------------------------------------------------------


@attrs.frozen
class OfAttrs:
    name: str
    sizes: list[int]
    inner: Leaf | None = None


@dataclasses.dataclass(frozen=True)
class OfDataclasses:
    name: str
    sizes: list[int]
    inner: Leaf | None = None


class OfTypedDict(TypedDict):
    name: str
    sizes: list[int]
    inner: NotRequired[Leaf | None]


class PydanticLeaf(pydantic.BaseModel):
    name: str
    weight: float = 0.0


class OfPydantic(pydantic.BaseModel):
    name: str
    sizes: list[int]
    inner: PydanticLeaf | None = None


CLASSES = [OfAttrs, OfDataclasses, OfTypedDict, OfPydantic]


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_of_every_make(kind: Any):
    output = output_of(kind)
    assert output.schema["required"] == ["name", "sizes"]
    assert list(output.schema["properties"]) == ["name", "sizes", "inner"]
    answer = output.read({"name": "a", "sizes": [1], "inner": {"name": "b"}})
    if kind is OfTypedDict:
        assert answer == {"name": "a", "sizes": [1], "inner": Leaf("b")}
    else:
        assert isinstance(answer, kind)
        assert (answer.name, answer.sizes, answer.inner.name) == ("a", [1], "b")
    wrong: Any
    for wrong in ({"name": "a"}, {"name": "a", "sizes": ["x"]}, []):
        with pytest.raises(WrongAnswerError):
            output.read(wrong)


def local_class() -> Any:
    @attrs.frozen
    class Rec:
        others: list[Rec]

    return Rec


@attrs.frozen
class Left:
    value: int = 0


@attrs.frozen
class Right:
    value: int = 0


@attrs.frozen
class Deep:
    either: list[Left | Right]


@dataclasses.dataclass
class Bytes:
    content: bytes


REFUSED = {
    "a class that is defined in a function": (local_class(), "'Rec' .* cannot be found"),
    "a union that is ambiguous, deep inside": (
        Deep,
        "Deep: .*Left.*Right.* cannot be made of JSON",
    ),
    "a field that JSON does not have": (Bytes, r"Bytes\.content: .*bytes.* has no JSON schema"),
    "a schema elsewhere": ({"$ref": "http://127.0.0.1:9/x.json"}, r"127\.0.*nothing is fetched"),
    "a schema that is not there": (
        {"properties": {"a": {"$ref": "#/$defs/missing"}}},
        "#/.defs/missing",
    ),
    "no class at all": (int, "expected a JSON schema, an attrs class"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_refused_before_anything_is_sent(name: str):
    kind, words = REFUSED[name]
    for use in (output_of, lambda kind: AgentTask("Go.", output=kind)):
        with pytest.raises(OpenCodeConfigError, match=words):
            use(kind)


def test_a_schema_may_refer_to_itself():
    schema = {
        "$defs": {"size": {"type": "integer"}},
        "properties": {"size": {"$ref": "#/$defs/size"}, "$ref": {"type": "string"}},
    }
    assert output_of(schema).read({"size": 1, "$ref": "x"}) == {"size": 1, "$ref": "x"}


async def test_a_swarm_refuses_such_an_agent_and_goes_on(tmp_path: Path):
    client = AsyncOpenCodeClient("/nowhere/opencode")
    async with open_swarm(client, workspace=tmp_path) as swarm:
        with pytest.raises(OpenCodeConfigError, match="bytes"):
            swarm.start_soon("Go.", output=Bytes)
        with pytest.raises(OpenCodeConfigError, match=r"worktree: .* is in no git repository"):
            swarm.start_soon("Go.", worktree=True)
        await trio.lowlevel.checkpoint()
        assert swarm.agents == ()
