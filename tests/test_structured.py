"""Structured answers: which kinds can be asked for, and what answers become.

Without `from __future__ import annotations`: annotations are tested as most users write them.
"""

import dataclasses
import enum
from typing import Annotated, Any, Literal, NotRequired, Optional, Required, TypedDict

import attrs
import pydantic
import pytest

from opencode_trio._json import Json
from opencode_trio._session.structured import WrongAnswerError, output_of
from opencode_trio._swarm.task import AgentTask
from opencode_trio.errors import OpenCodeConfigError


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
    next: Optional["Node"] = None


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
    with pytest.raises(OpenCodeConfigError, match=r"output: Made.value: .* is ambiguous"):
        output_of(class_)


def test_a_schema_is_taken_as_it_is():
    output = output_of({"type": "array", "items": {"type": "integer"}})
    assert output.read([1, 2]) == [1, 2]
    with pytest.raises(WrongAnswerError, match=r"\$\[1\]"):
        output.read([1, "2"])


@dataclasses.dataclass
class AsDataclass:
    count: int
    parts: list["AsDataclass"] = dataclasses.field(default_factory=list)
    last: Optional["AsDataclass"] = None


@attrs.frozen
class AsAttrs:
    count: int
    parts: list["AsAttrs"] = attrs.field(factory=list)


class AsTypedDict(TypedDict):
    count: int
    parts: "NotRequired[list[AsTypedDict]]"  # Python itself takes it for required


class AsPartialDict(TypedDict, total=False):
    count: Required[int]
    note: str


class AsModel(pydantic.BaseModel):
    count: int
    parts: list["AsModel"] = []


@pydantic.dataclasses.dataclass
class AsPydanticDataclass:
    count: int


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        (
            AsDataclass,
            {"count": 1, "parts": [{"count": 2}], "last": {"count": 3}},
            AsDataclass(1, [AsDataclass(2)], AsDataclass(3)),
        ),
        (AsAttrs, {"count": 1, "parts": [{"count": 2}]}, AsAttrs(1, [AsAttrs(2)])),
        (
            AsTypedDict,
            {"count": 1, "parts": [{"count": 2}]},
            {"count": 1, "parts": [{"count": 2}]},
        ),
        (AsPartialDict, {"count": 1}, {"count": 1}),
        (
            AsModel,
            {"count": 1, "parts": [{"count": 2}]},
            AsModel(count=1, parts=[AsModel(count=2)]),
        ),
        (AsPydanticDataclass, {"count": 1}, AsPydanticDataclass(1)),
    ],
)
def test_answers_of_every_kind_of_class(kind: Any, answer: Json, expected: Any):
    output = output_of(kind)
    assert output.schema["type"] == "object"
    assert output.schema["required"] == ["count"]
    assert output.read(answer) == expected
    for wrong in ({}, {"count": "many"}):
        with pytest.raises(WrongAnswerError, match="count"):
            output.read(wrong)


class Left:
    @attrs.frozen
    class Same:
        value: int
        inner: list["Left.Same"] = attrs.field(factory=list)


class Right:
    @attrs.frozen
    class Same:
        value: str
        inner: list["Right.Same"] = attrs.field(factory=list)


@attrs.frozen
class Both:
    left: Left.Same
    right: Right.Same


def test_two_classes_of_one_name_that_contain_themselves():
    answer = {
        "left": {"value": 1, "inner": [{"value": 2}]},
        "right": {"value": "x", "inner": [{"value": "y"}]},
    }
    left, right = Left.Same(1, [Left.Same(2)]), Right.Same("x", [Right.Same("y")])
    assert output_of(Both).read(answer) == Both(left, right)


class Twin(TypedDict):
    count: int


class NotForJson(pydantic.BaseModel):
    value: type


class Undefined(pydantic.BaseModel):
    value: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@dataclasses.dataclass
class WithInitVar:
    value: dataclasses.InitVar[int]


def one_field(hint: Any) -> Any:
    return attrs.make_class("Made", {"value": attrs.field(type=hint)})


def local_class() -> Any:
    @attrs.frozen
    class Local:
        parts: list["Local"]

    return Local


CANNOT_BE_USED = {
    "no class": (int, "expected a JSON schema or a class"),
    "an instance": (Leaf("a"), "expected a JSON schema or a class"),
    "a list of a class": (list[Leaf], "make anything else a field"),
    "bytes": (one_field(list[bytes]), r"Made\.value: bytes cannot be written as JSON; use str"),
    "a tuple": (one_field(tuple[int, str]), r"Made\.value: tuple\[int, str\] cannot be"),
    "keys": (one_field(dict[int, str]), r"Made\.value: dict\[int, str\] cannot be"),
    "a value": (one_field(Literal[b"x"]), r"Made\.value: the value b'x' cannot be"),
    "deep": (one_field(Annotated[one_field(bytes), 1]), r"Made\.value: bytes"),
    "alike": (one_field(AsDataclass | AsAttrs), r"Made\.value: AsDataclass \| AsAttrs is ambig"),
    "alike, in a list": (
        one_field(list[Twin | AsTypedDict]),
        r"Made\.value: .* is ambiguous; each",
    ),
    "two lists": (one_field(int | list[int] | dict[str, int]), r"Made\.value: .* is ambiguous"),
    "an enumeration": (one_field(Colour | str), r"Made\.value: Colour \| str is ambiguous"),
    "a name": (local_class(), "annotations of Local .*'Local' is not defined.* at its top level"),
    "InitVar": (WithInitVar, r"WithInitVar\.value"),
    "a model inside": (one_field(AsModel), r"Made\.value: AsModel is a pydantic model"),
    "a model's field": (NotForJson, "NotForJson: Cannot generate"),
    "a model's name": (Undefined, "Undefined: .* not fully defined"),
    "no schema": ({"type": "nonsense"}, "nonsense"),
    "no JSON": ({"type": {1}}, "is not JSON"),
    "far away": ({"properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}, "http.* under .defs"),
    "nowhere": ({"items": {"$ref": "#/$defs/x"}}, "which is not in it"),
    "for ever": ({"$ref": "#"}, "refers to itself for ever"),
    "deep for ever": ({"items": {"anyOf": [{"$ref": "#/items"}]}}, "refers to itself for ever"),
    "a pattern": ({"properties": {"a": {"pattern": "(?<x>"}}}, "regex"),
}


@pytest.mark.parametrize(("kind", "problem"), CANNOT_BE_USED.values(), ids=CANNOT_BE_USED)
def test_a_kind_that_cannot_be_used_is_refused_with_a_task(kind: Any, problem: str):
    """Before anything is sent, or a session is opened."""
    with pytest.raises(OpenCodeConfigError, match=f"output: .*{problem}"):
        AgentTask("prompt", output=kind)


def test_a_schema_that_refers_to_itself_in_its_parts_is_taken():
    output = output_of({"properties": {"next": {"$ref": "#"}, "value": {"type": "integer"}}})
    assert output.read({"next": {"value": 1}}) == {"next": {"value": 1}}
    with pytest.raises(WrongAnswerError, match=r"\$\.next\.value"):
        output.read({"next": {"value": "1"}})
