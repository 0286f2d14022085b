"""Structured answers: what is asked of the model, and whether it gave that.

opencode passes a schema on to the model but checks nothing, so the answer is checked here.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import attrs

from opencode_trio._json import Json, is_mapping, is_sequence
from opencode_trio._session.turn import Turn
from opencode_trio._tasks import time_limit
from opencode_trio.errors import OpenCodeConfigError, OpenCodeTurnError
from opencode_trio.events import ErrorInfo
from opencode_trio.results import AnswerT, RunResult

OutputKind: TypeAlias = type[AnswerT] | Mapping[str, Any]
"""What an answer must match: an attrs class, a dataclass, a `TypedDict`, a pydantic model, or a JSON
schema."""


NO_ANSWER = "StructuredOutputError"
"""opencode's name for a model that answered in words instead, and ours for a wrong answer."""


ASK_AGAIN = (
    "Your structured output was not accepted: {problem}\n"
    "Call the StructuredOutput tool again, with an answer that matches the schema."
)


class WrongAnswerError(Exception):
    """The answer is not what was asked for; the text says why."""


@attrs.frozen
class Output:
    """A kind of answer."""

    schema: Json
    """What the model is told."""
    read: Callable[[Any], Any]
    """Checks an answer, and makes it what the caller wants; raises `WrongAnswerError`."""


def output_of(kind: Any) -> Output:
    """Prepare to ask for answers of a kind.

    Args:
        kind: a JSON schema, or a class: of attrs, a dataclass, a `TypedDict`, or a pydantic model.

    Raises:
        OpenCodeConfigError: it is none of these, is no valid schema, or has fields that cannot be
            made of JSON.
        ImportError: the extra `structured` is not installed.
    """
    if is_mapping(kind):
        schema = dict(kind)
        return Output(schema, _checker(schema))
    if _is_pydantic(kind):
        return _of_pydantic(kind)
    if is_described(kind):
        schema, kinds = schema_of(kind)
        return Output(schema, _structurer(_checker(schema), kind, kinds))
    raise OpenCodeConfigError(
        "output: expected a JSON schema, an attrs class, a dataclass, a TypedDict or a pydantic "
        f"model, got {kind!r}"
    )


def _is_pydantic(kind: object) -> bool:
    """Whether it is a pydantic model; where there are any, pydantic has been imported."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _of_pydantic(kind: Any) -> Output:
    """Let pydantic itself describe and check an answer."""
    import pydantic  # noqa: PLC0415 - the user has it, as the model shows

    try:
        schema = kind.model_json_schema()
    except pydantic.errors.PydanticUserError as error:
        raise OpenCodeConfigError(f"output: {kind.__name__}: {error}") from error

    def read(answer: Any) -> Any:
        try:
            return kind.model_validate(answer)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False)
            told = (f"{'.'.join(map(str, p['loc'])) or '$'}: {p['msg']}" for p in problems[:5])
            raise WrongAnswerError("; ".join(told)) from error

    return Output(schema, read)


def _checker(schema: Json) -> Callable[[Any], Any]:
    try:
        # Of the extra `structured`, which is needed only from here on.
        import jsonschema.validators  # noqa: PLC0415
        import referencing  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from error
    kind = jsonschema.validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise OpenCodeConfigError(f"output: no valid JSON schema: {error.message}") from error
    _check_references(schema)
    # With a registry of its own, a `$ref` never makes it reach for the network.
    validator = kind(schema, registry=referencing.Registry())

    def check(answer: Any) -> Any:
        try:
            errors = list(validator.iter_errors(answer))
        except RecursionError as error:
            raise OpenCodeConfigError("output: the schema refers to itself for ever") from error
        problems = [f"{error.json_path}: {error.message}" for error in errors]
        if problems:
            raise WrongAnswerError("; ".join(problems[:5]))
        return answer

    return check


def _check_references(schema: Json) -> None:
    """Check that all that a schema refers to is in it: nothing is fetched."""
    import referencing.exceptions  # noqa: PLC0415 - as above
    import referencing.jsonschema  # noqa: PLC0415

    latest = referencing.jsonschema.DRAFT202012
    resource: Any = referencing.Resource.from_contents(schema, default_specification=latest)
    registry = cast("Any", referencing.Registry)()
    resolver: Any = registry.with_resource("", resource).crawl().resolver()
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except referencing.exceptions.Unresolvable as error:
            raise OpenCodeConfigError(
                f"output: the schema refers to {reference!r}, which is not in it; nothing is "
                "fetched from elsewhere"
            ) from error


def _references(value: object) -> Iterator[str]:
    if is_mapping(value):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        value = list(value.values())
    if is_sequence(value):
        for inner in value:
            yield from _references(inner)


def _structurer(
    check: Callable[[Any], Any], kind: type[Any], kinds: Sequence[Any]
) -> Callable[[Any], Any]:
    try:
        import cattrs.preconf.json  # noqa: PLC0415 - as above
    except ImportError as error:
        raise _missing(error) from error
    converter = cattrs.preconf.json.make_converter()
    for part in reversed(kinds):  # from the inside, so that the error names the place
        try:
            converter.get_structure_hook(part)
        except Exception as error:  # of several kinds, for example for a union that is ambiguous
            raise OpenCodeConfigError(
                f"output: {kind.__name__}: {part!r} cannot be made of JSON: {error}"
            ) from error

    def read(answer: Any) -> Any:
        try:
            return converter.structure(check(answer), kind)
        except WrongAnswerError:
            raise
        except Exception as error:  # whatever a validator of the class raises
            reasons = cattrs.transform_error(error)
            raise WrongAnswerError("; ".join(reasons)) from error

    return read


def _missing(error: ImportError) -> ImportError:
    return ImportError(
        "structured answers need packages that are not installed:"
        " pip install 'opencode-trio[structured]'",
        name=error.name,
    )


def wrong_answer(problem: str, result: RunResult) -> OpenCodeTurnError:
    """Say that the model did not manage; ``error.data["answer"]`` is what it gave."""
    error = ErrorInfo(
        name=NO_ANSWER, message=problem, data={"answer": result.structured, "text": result.text}
    )
    text = f"the model's answer does not match the schema: {problem}"
    return OpenCodeTurnError(text, error=error, partial=result)


def together(first: RunResult, second: RunResult) -> RunResult:
    """Add up two turns that the caller sees as one; what was said last is the answer."""
    costs = dict(first.cost_by_session)
    for session, cost in second.cost_by_session.items():
        costs[session] = costs.get(session, 0.0) + cost
    return attrs.evolve(
        second,
        text="\n".join(filter(None, [first.text, second.text])),
        turns=first.turns + second.turns,
        tool_calls=[*first.tool_calls, *second.tool_calls],
        tool_parts=first.tool_parts + second.tool_parts,
        token_usage=first.token_usage + second.token_usage,
        total_cost=first.total_cost + second.total_cost,
        cost_by_session=costs,
        duration_s=(first.duration_s or 0.0) + (second.duration_s or 0.0),
        events=[*first.events, *second.events],
    )


SCALARS: Mapping[object, Json] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    None: {"type": "null"},
    Any: {},
    dict: {"type": "object"},
    list: {"type": "array"},
}


def is_described(kind: Any) -> bool:
    """Whether a type is a class whose fields can be told: attrs, a dataclass or a TypedDict."""
    if is_typeddict(kind):
        return True
    return isinstance(kind, type) and (attrs.has(kind) or dataclasses.is_dataclass(kind))


def schema_of(kind: Any) -> tuple[Json, list[Any]]:
    """Write the JSON schema of a type; return it with the classes and unions in it.

    Raises:
        OpenCodeConfigError: JSON has no such thing; the text names the field.
    """
    builder = _Builder()
    schema = builder.schema(kind)
    if builder.definitions:
        schema = {**schema, "$defs": builder.definitions}
    return schema, builder.kinds


@attrs.define
class _Builder:
    definitions: dict[str, Json] = attrs.field(factory=dict[str, Json])
    kinds: list[Any] = attrs.field(factory=list[Any])
    _inside: list[type] = attrs.field(factory=list[type])
    _where: list[str] = attrs.field(factory=list[str])

    def schema(self, kind: Any) -> Json:
        if is_described(kind):
            self.kinds.append(kind)
            return self._class(kind)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return {"enum": [member.value for member in kind]}
        if (generic := self._generic(kind)) is not None:
            return generic
        try:
            return dict(SCALARS[kind])
        except (KeyError, TypeError):
            at = "".join(f"{name}: " for name in self._where[-1:])
            raise OpenCodeConfigError(f"output: {at}{kind!r} has no JSON schema") from None

    def _generic(self, kind: Any) -> Json | None:
        origin, args = get_origin(kind), get_args(kind)
        if origin in (Annotated, Required, NotRequired):
            return self.schema(args[0])
        if origin is Literal:
            return {"enum": list(args)}
        if origin in (Union, types.UnionType):
            self.kinds.append(kind)
            return {"anyOf": [self.schema(arg) for arg in args]}
        if origin in (list, Sequence) or (origin is tuple and args[1:] == (...,)):
            return {"type": "array", "items": self.schema(args[0])}
        if origin in (dict, Mapping) and args[0] is str:
            return {"type": "object", "additionalProperties": self.schema(args[1])}
        return None

    def _class(self, kind: type) -> Json:
        """Describe a class in place; one that contains itself, by reference."""
        if kind in self._inside:
            self.definitions.setdefault(kind.__name__, {})
            return {"$ref": f"#/$defs/{kind.__name__}"}
        self._inside.append(kind)
        hints = _hints_of(kind)
        required = _fields_of(kind)
        schema: Json = {
            "type": "object",
            "properties": {name: self._field(kind, name, hints) for name in required},
            "required": [name for name, is_required in required.items() if is_required],
            "additionalProperties": False,
        }
        self._inside.pop()
        if kind.__name__ in self.definitions:
            self.definitions[kind.__name__] = schema
        return schema

    def _field(self, kind: type, name: str, hints: Mapping[str, Any]) -> Json:
        self._where.append(f"{kind.__name__}.{name}")
        schema = self.schema(hints.get(name, Any))
        self._where.pop()
        return schema


def _hints_of(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise OpenCodeConfigError(
            f"output: {kind.__name__}: the name {error.name!r} in its annotations cannot be found; "
            "define the classes at the top of a module"
        ) from error


def _fields_of(kind: type) -> dict[str, bool]:
    """Return the fields that an answer can have, each with whether it must."""
    if is_typeddict(kind):
        keys: frozenset[str] = getattr(kind, "__required_keys__", frozenset[str]())
        # It does not see `NotRequired` in annotations that are text.
        marks = {name: get_origin(hint) for name, hint in _hints_of(kind).items()}
        return {
            name: mark is Required or (mark is not NotRequired and name in keys)
            for name, mark in marks.items()
        }
    if attrs.has(kind):
        return {f.name: f.default is attrs.NOTHING for f in attrs.fields(kind) if f.init}
    missing = dataclasses.MISSING
    return {
        f.name: f.default is missing and f.default_factory is missing
        for f in dataclasses.fields(kind)
        if f.init
    }


Prompting = Callable[[str], AbstractAsyncContextManager[Turn]]
"""Opens a turn with a prompt."""


async def structured_answer(
    prompt: str, output: Output, prompting: Prompting, *, timeout_s: float | None
) -> RunResult:
    """Prompt until the answer is of a kind; return the result, of two turns if it took two.

    Args:
        prompt: what to do.
        output: the kind of answer.
        prompting: opens a turn that asks for it.
        timeout_s: seconds for everything.

    Raises:
        OpenCodeTurnError: the second answer was wrong, too; or the model failed.
        OpenCodeError: as a turn does.

    **Cancellation**: as that of a turn.
    """
    former: RunResult | None = None
    with time_limit(timeout_s, partial=lambda: former):
        while True:
            result, problem = await _answer(prompting(prompt), output)
            result = result if former is None else together(former, result)
            if problem is None:
                return result
            if former is not None:
                raise wrong_answer(problem, result)
            former, prompt = result, ASK_AGAIN.format(problem=problem)


async def _answer(
    opening: AbstractAsyncContextManager[Turn], output: Output
) -> tuple[RunResult, str | None]:
    """Return a turn's result, with the instance in it, or with what is wrong."""
    try:
        async with opening as turn:
            result = await turn.wait()
    except OpenCodeTurnError as error:
        if error.name != NO_ANSWER or error.partial is None:
            raise
        return error.partial, error.error.message
    try:
        return attrs.evolve(result, structured=output.read(result.structured)), None
    except WrongAnswerError as error:
        return result, str(error)
