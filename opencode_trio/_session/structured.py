"""Structured answers: what is asked of the model, and whether it gave that.

opencode passes a schema on to the model but checks nothing, so the answer is checked here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import lru_cache, partial
from typing import Any, TypeAlias

import attrs

from opencode_trio._json import Json, is_mapping, object_of
from opencode_trio._session.answer_schema import (
    fields_of,
    has_fields,
    is_pydantic,
    is_typed_dict,
    schema_of,
)
from opencode_trio._session.turn import Turn
from opencode_trio._tasks import time_limit
from opencode_trio.errors import OpenCodeConfigError, OpenCodeTurnError
from opencode_trio.events import ErrorInfo
from opencode_trio.results import AnswerT, RunResult

OutputKind: TypeAlias = type[AnswerT] | Mapping[str, Any]
"""What an answer must match: an attrs class, a dataclass, a TypedDict, a pydantic model, or a JSON
schema."""


NO_ANSWER = "StructuredOutputError"
"""opencode's name for a model that answered in words instead, and ours for a wrong answer."""


ASK_AGAIN = (
    "Your structured output was not accepted: {problem}\n"
    "Call the StructuredOutput tool again, with an answer that matches the schema."
)


MAX_REASONS = 5
"""So much of what is wrong with an answer is told."""


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
    """Prepare to ask for answers of a kind; all that can be wrong with it is found here.

    Args:
        kind: a JSON schema, an attrs class, a dataclass, a TypedDict, or a pydantic model.

    Raises:
        OpenCodeConfigError: it is none of these, or cannot be used; the text says what to do.
        ImportError: the extra `structured` is not installed.
    """
    if is_mapping(kind):
        return _of_schema(_json_text(kind))
    if is_pydantic(kind):
        return _of_pydantic(kind)
    if has_fields(kind) or is_typed_dict(kind):
        return _of_class(kind)
    raise OpenCodeConfigError(
        "output: expected a JSON schema or a class (attrs, dataclass, TypedDict, pydantic model),"
        f" got {kind!r}; make anything else a field of such a class"
    )


def _json_text(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(schema), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OpenCodeConfigError(f"output: the schema is not JSON: {error}") from error


# A swarm asks for the same kind again and again, and each is looked at more than once.
@lru_cache(maxsize=128)
def _of_schema(text: str) -> Output:
    schema = object_of(json.loads(text))
    return Output(schema, _checker(schema))


@lru_cache(maxsize=128)
def _of_class(kind: type[Any]) -> Output:
    try:
        # Of the extra `structured`, which is needed only from here on.
        import cattrs.preconf.json  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from error
    converter = cattrs.preconf.json.make_converter()
    # cattrs resolves no name inside of `list["Name"]`, and takes `NotRequired` in an annotation
    # that is a string for required; our fields know better.
    converter.register_structure_hook_factory(has_fields, partial(_class_hook, converter))
    converter.register_structure_hook_factory(is_typed_dict, partial(_typed_dict_hook, converter))

    def can_tell(union: Any) -> bool:
        try:
            converter.get_structure_hook(union)
        except (cattrs.StructureHandlerNotFoundError, TypeError):
            return False
        return True

    schema = schema_of(kind, can_tell)
    check = _checker(schema)

    def read(answer: Any) -> Any:
        check(answer)
        try:
            return converter.structure(answer, kind)
        except Exception as error:  # whatever a validator of the class raises
            reasons = cattrs.transform_error(error)
            raise WrongAnswerError("; ".join(reasons)) from error

    return Output(schema, read)


def _class_hook(converter: Any, kind: type[Any]) -> Any:
    from cattrs.gen import make_dict_structure_fn, override  # noqa: PLC0415 - as above

    hooks: dict[str, Any] = {
        field.name: override(struct_hook=_hook(converter, field.kind)) for field in fields_of(kind)
    }
    return make_dict_structure_fn(kind, converter, **hooks)


def _typed_dict_hook(converter: Any, kind: type[Any]) -> Any:
    hooks = {field.name: _hook(converter, field.kind) for field in fields_of(kind)}

    def read(value: Json, _: Any) -> Json:
        return {name: hooks[name](part, None) for name, part in value.items()}

    return read


def _hook(converter: Any, kind: Any) -> Callable[[Any, Any], Any]:
    return lambda value, _: converter.structure(value, kind)


@lru_cache(maxsize=128)
def _of_pydantic(kind: type[Any]) -> Output:
    import pydantic  # noqa: PLC0415 - whoever has such a class has it

    try:
        adapter = pydantic.TypeAdapter(kind)
        schema = adapter.json_schema()
    except (pydantic.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
        raise OpenCodeConfigError(f"output: {kind.__name__}: {error.message}") from error
    if root := schema.pop("$ref", ""):  # providers ask for an object at the top
        schema = {**schema["$defs"][root.removeprefix("#/$defs/")], **schema}

    def read(answer: Any) -> Any:
        try:
            return adapter.validate_json(json.dumps(answer))
        except pydantic.ValidationError as error:
            reasons = [f"{_path(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False)]
            raise WrongAnswerError("; ".join(reasons[:MAX_REASONS])) from error
        except Exception as error:  # whatever a validator of the class raises
            raise WrongAnswerError(str(error)) from error

    return Output(schema, read)


def _path(parts: tuple[int | str, ...]) -> str:
    """Write a place in an answer as jsonschema does."""
    return "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)


def _checker(schema: Json) -> Callable[[Any], Any]:
    try:
        import jsonschema.validators  # noqa: PLC0415 - of the extra, too
        import referencing.exceptions  # noqa: PLC0415
        from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from error
    kind = jsonschema.validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise OpenCodeConfigError(f"output: no valid JSON schema: {error.message}") from error
    # With a registry of its own, a `$ref` never makes it reach for the network.
    validator = kind(schema, registry=EMPTY_REGISTRY)
    try:
        _try_out(validator)
    except referencing.exceptions.Unresolvable as error:
        raise OpenCodeConfigError(
            f"output: the schema refers to {error.ref!r}, which is not in it; nothing is fetched,"
            " so put it under $defs"
        ) from error
    except RecursionError as error:
        raise OpenCodeConfigError(
            "output: the schema refers to itself for ever; let it do so inside of properties or"
            " items"
        ) from error

    def check(answer: Any) -> Any:
        problems = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(answer)]
        if problems:
            raise WrongAnswerError("; ".join(problems[:MAX_REASONS]))
        return answer

    return check


ONE_OF_EACH: tuple[Any, ...] = (None, True, 0, "", [], {})
"""The kinds of JSON value."""


def _try_out(validator: Any) -> None:
    """Try every part of a schema on a value of each kind: what is wrong with it, raises."""
    from referencing.jsonschema import (  # noqa: PLC0415 - as above
        DRAFT202012,
        EMPTY_REGISTRY,
        specification_with,
    )

    dialect = validator.META_SCHEMA.get("$schema", "")
    root = specification_with(dialect, default=DRAFT202012).create_resource(validator.schema)
    left = [(root, EMPTY_REGISTRY.resolver_with_root(root))]
    while left:
        part, resolver = left.pop()
        for value in ONE_OF_EACH:
            list(validator.descend(value, part.contents, resolver=resolver))
        left += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]


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
