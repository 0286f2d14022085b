"""Plots: what the model does in a turn, faults included, and what has to come of it.

A plot is a pure function of a marker and a chance.  Its scripts are lists of replies, one for each
request of a session in that role; the last is repeated.  `ends` are the names (see `ends`) of all
the ends that the turn may have when nothing but this happens to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeAlias

import attrs

from chaos.markers import prompt
from opencode_trio.testing import (
    Cut,
    Delay,
    Disconnect,
    ErrorFrame,
    HttpError,
    ModelRequest,
    Raw,
    Reasoning,
    Reply,
    Stall,
    Text,
    ToolCall,
    Usage,
)

Line: TypeAlias = Reply | Callable[[ModelRequest], Reply]
"""One reply, or what makes one of what the tools have said."""

IMPATIENT = "impatient/scripted"
"""The same model behind a provider that is given up after a second without a chunk."""

NAP = "sleep $CHAOS_NAP"
"""To sleep for minutes; how long exactly tells by whom it was started."""

ASKED = "echo ask"
"""Commands that begin so need permission."""


@attrs.frozen
class Plot:
    """What the model does in a turn, and what has to come of it."""

    root: Sequence[Line]
    """The replies to the agent itself."""
    ends: frozenset[str]
    """Its possible ends; empty for a turn that never ends by itself."""
    child: Sequence[Line] = ()
    """The replies to each subagent."""
    text: str | None = None
    """The answer, if it ends with one."""
    requests: int | None = None
    """How many requests reach the model, subagents' included; `None` if that is not certain."""
    most: int = 20
    """The most of them, if that is not certain; loops are stopped long before."""
    in_run: frozenset[str] | None = None
    """Its possible ends in run mode, where they are others."""
    options: Mapping[str, Any] = attrs.field(factory=dict)
    """Options of the turn."""
    handler: str = "no"
    """How whoever is asked behaves: see `HANDLERS`."""
    asks: int = 0
    """How often somebody is asked."""

    @property
    def has_shape(self) -> bool:
        """Whether the answer is to match a schema."""
        return "output" in self.options

    @property
    def child_waits(self) -> bool:
        """Whether it is a subagent that waits for an answer."""
        return bool(self.child and self.asks)

    def ends_in(self, *, is_run: bool) -> frozenset[str]:
        """Return its possible ends, in a run or in a session."""
        return self.in_run if is_run and self.in_run is not None else self.ends


Builder: TypeAlias = Callable[[str, Random], Plot]


def usage(chance: Random) -> Usage:
    """Invent the tokens of a reply."""
    return Usage(
        input=chance.randint(1, 4000),
        output=chance.randint(1, 400),
        reasoning=chance.choice([0, 0, chance.randint(1, 50)]),
        cache_read=chance.choice([0, chance.randint(1, 9000)]),
    )


def said(chance: Random, *actions: Any, **more: Any) -> Reply:
    """Compose a reply with tokens of its own, and a pause somewhere."""
    pause = [Delay(round(chance.uniform(0.05, 0.6), 2))] if chance.random() < 0.5 else []
    return Reply(*pause, *actions, **({"usage": usage(chance)} | more))


def bash(command: str) -> ToolCall:
    return ToolCall("bash", {"command": command, "description": "a chaos test"})


def task(mark: str) -> ToolCall:
    arguments = {"description": "sub", "subagent_type": "general", "prompt": prompt(mark, "child")}
    return ToolCall("task", arguments)


def heard(mark: str, chance: Random) -> Line:
    """Answer with what the last tool said."""
    tokens = usage(chance)

    def line(request: ModelRequest) -> Reply:
        results = request.tool_results or ("nothing",)
        return Reply(f"{mark} heard: {results[-1].strip()}", usage=tokens)

    return line


COMPLETED = frozenset({"completed"})
NEVER: frozenset[str] = frozenset()


# --- in good order ----------------------------------------------------------------------------


def plain(mark: str, chance: Random) -> Plot:
    text = f"{mark} says: hello, this is the answer\n"
    pieces = Text(text, chunks=chance.randint(1, 12), delay_s=chance.choice([0, 0, 0.05]))
    return Plot([said(chance, pieces)], COMPLETED, text=text, requests=1)


def thinking(mark: str, chance: Random) -> Plot:
    text = f"{mark} thought about it"
    return Plot([said(chance, Reasoning(f"{mark} hm, hm"), text)], COMPLETED, text=text, requests=1)


def tool(mark: str, chance: Random) -> Plot:
    first = said(chance, f"{mark} looks", bash(f"echo {mark} is out"))
    text = f"{mark} heard: {mark} is out"
    return Plot([first, heard(mark, chance)], COMPLETED, text=text, requests=2)


def tools(mark: str, chance: Random) -> Plot:
    number = chance.randint(2, 4)
    many = [bash(f"echo {mark} {n}") for n in range(number)]
    second = said(chance, bash(f"sleep 0.{chance.randint(1, 5)}; echo {mark} last"))
    text = f"{mark} heard: {mark} last"
    script = [said(chance, *many), second, heard(mark, chance)]
    return Plot(script, COMPLETED, text=text, requests=3)


def todo(mark: str, chance: Random) -> Plot:
    todos = [{"content": mark, "status": "pending", "priority": "low"}]
    first = said(chance, ToolCall("todowrite", {"todos": todos}))
    text = f"{mark} has planned"
    return Plot([first, said(chance, text)], COMPLETED, text=text, requests=2)


def subagent(mark: str, chance: Random) -> Plot:
    text = f"{mark} has delegated"
    child = [said(chance, bash(f"echo {mark} of the child")), said(chance, f"{mark} child done")]
    return Plot(
        [said(chance, task(mark)), said(chance, text)],
        COMPLETED,
        child=child,
        text=text,
        requests=4,
    )


def subagents(mark: str, chance: Random) -> Plot:
    number = chance.randint(2, 3)
    text = f"{mark} has delegated"
    return Plot(
        [said(chance, *[task(mark)] * number), said(chance, text)],
        COMPLETED,
        child=[said(chance, f"{mark} child done")],
        text=text,
        requests=2 + number,
    )


def huge(mark: str, chance: Random) -> Plot:
    size = chance.choice([200_000, 1_000_000, 3_000_000])
    text = f"{mark} " + "x" * size + f" {mark}"
    return Plot([said(chance, Text(text, chunks=40))], COMPLETED, text=text, requests=1)


def drip(mark: str, chance: Random) -> Plot:
    text = f"{mark} " + "drip, " * 30
    return Plot(
        [said(chance, Text(text, chunks=30, delay_s=0.1))], COMPLETED, text=text, requests=1
    )


def long_output(mark: str, chance: Random) -> Plot:
    """Megabytes out of a tool."""
    command = f"head -c {chance.choice([100_000, 2_000_000])} /dev/zero | tr '\\0' x; echo {mark}"
    text = f"{mark} has read it"
    return Plot([said(chance, bash(command)), said(chance, text)], COMPLETED, text=text, requests=2)


def background(mark: str, chance: Random) -> Plot:
    """Leave processes behind that detach themselves."""
    job = chance.choice([f"setsid {NAP}", f"({NAP} & {NAP})", f"env -i setsid {NAP}"])
    command = f"{job} >/dev/null 2>&1 </dev/null & echo {mark} started"
    text = f"{mark} heard: {mark} started"
    return Plot(
        [said(chance, bash(command)), heard(mark, chance)], COMPLETED, text=text, requests=2
    )


# --- asks ---------------------------------------------------------------------------------------


def ask(mark: str, chance: Random) -> Plot:
    first = said(chance, bash(f"{ASKED} {mark}"))
    text = f"{mark} heard: ask {mark}"
    handler = chance.choice(["yes", "slow yes"])
    return Plot(
        [first, heard(mark, chance)], COMPLETED, text=text, requests=2, handler=handler, asks=1
    )


def refused(mark: str, chance: Random) -> Plot:
    return Plot(
        [said(chance, bash(f"{ASKED} {mark}")), said(chance, f"{mark} goes on")],
        frozenset({"blocked"}),
        text="",
        requests=1,
        handler="no",
        asks=1,
    )


def refused_with_reason(mark: str, chance: Random) -> Plot:
    text = f"{mark} does something else"
    return Plot(
        [said(chance, bash(f"{ASKED} {mark}")), said(chance, text)],
        COMPLETED,
        text=text,
        requests=2,
        handler="why not",
        asks=1,
    )


def child_asks(mark: str, chance: Random) -> Plot:
    text = f"{mark} has delegated"
    return Plot(
        [said(chance, task(mark)), said(chance, text)],
        COMPLETED,
        child=[said(chance, bash(f"{ASKED} {mark}")), said(chance, f"{mark} child done")],
        text=text,
        requests=4,
        handler=chance.choice(["yes", "slow yes", "why not"]),
        asks=1,
    )


def question(mark: str, chance: Random) -> Plot:
    first = said(chance, _question(mark))
    text = f"{mark} was answered"
    return Plot(
        [first, said(chance, text)], COMPLETED, text=text, requests=2, handler="yes", asks=1
    )


def dismissed(mark: str, chance: Random) -> Plot:
    return Plot(
        [said(chance, _question(mark)), said(chance, f"{mark} goes on")],
        frozenset({"blocked"}),
        text="",
        requests=1,
        handler="no",
        asks=1,
    )


def crashing_handler(mark: str, chance: Random) -> Plot:
    return Plot(
        [said(chance, bash(f"{ASKED} {mark}")), said(chance, f"{mark} goes on")],
        frozenset({"handler"}),
        handler="crash",
        asks=1,
    )


def child_meets_crashing_handler(mark: str, chance: Random) -> Plot:
    return Plot(
        [said(chance, task(mark)), said(chance, f"{mark} goes on")],
        frozenset({"handler"}),
        child=[said(chance, bash(f"{ASKED} {mark}")), said(chance, f"{mark} child done")],
        handler="crash",
        asks=1,
    )


def silent_handler(mark: str, chance: Random) -> Plot:
    by_child = chance.random() < 0.5
    asking = [said(chance, bash(f"{ASKED} {mark}")), said(chance, f"{mark} goes on")]
    root = [said(chance, task(mark)), said(chance, f"{mark} goes on")] if by_child else asking
    child = asking if by_child else []
    return Plot(root, NEVER, child=child, handler="never", asks=1)


def child_has_a_question(mark: str, chance: Random) -> Plot:
    text = f"{mark} has delegated"
    return Plot(
        [said(chance, task(mark)), said(chance, text)],
        COMPLETED,
        child=[said(chance, _question(mark)), said(chance, f"{mark} child done")],
        text=text,
        requests=4,
        handler="yes",
        asks=1,
    )


def _question(mark: str) -> ToolCall:
    options = [{"label": "one", "description": "1"}, {"label": "two", "description": "2"}]
    asked = {"question": f"{mark}: which?", "header": "which", "options": options}
    return ToolCall("question", {"questions": [asked]})


# --- answers of a shape ---------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}


def structured(mark: str, chance: Random) -> Plot:
    answer = said(chance, ToolCall("StructuredOutput", {"answer": 42}))
    return Plot([answer], COMPLETED, text="", requests=1, options={"output": SCHEMA})


def structured_in_the_end(mark: str, chance: Random) -> Plot:
    wrong = said(chance, ToolCall("StructuredOutput", {"answer": mark}))
    answer = said(chance, ToolCall("StructuredOutput", {"answer": 42}))
    return Plot([wrong, answer], COMPLETED, text="", requests=2, options={"output": SCHEMA})


def structured_never(mark: str, chance: Random) -> Plot:
    wrong = said(chance, ToolCall("StructuredOutput", {"answer": mark}))
    ends = frozenset({"turn-error StructuredOutputError"})
    return Plot([wrong], ends, requests=2, options={"output": SCHEMA})


# --- the model's mistakes ---------------------------------------------------------------------


def unknown_tool(mark: str, chance: Random) -> Plot:
    text = f"{mark} found another way"
    first = said(chance, ToolCall("teleport", {"to": mark}))
    return Plot([first, said(chance, text)], COMPLETED, text=text, requests=2)


def broken_arguments(mark: str, chance: Random) -> Plot:
    text = f"{mark} found another way"
    wrong = chance.choice(['{"command": ', "[]", '{"command": 7}', "no JSON"])
    first = said(chance, ToolCall("bash", wrong))
    return Plot([first, said(chance, text)], COMPLETED, text=text, requests=2)


def loop(mark: str, chance: Random) -> Plot:
    steps = chance.randint(2, 4)
    again = said(chance, bash(f"echo {mark}"))
    options = {"max_steps": steps}
    return Plot([again], frozenset({"limit max_steps"}), options=options)


def costly(mark: str, chance: Random) -> Plot:
    again = said(chance, bash(f"echo {mark}"), usage=Usage(1000, 100))
    options = {"max_cost_usd": 0.0012 * chance.randint(1, 3)}
    return Plot([again], frozenset({"limit max_cost_usd"}), options=options)


def cut_short(mark: str, chance: Random) -> Plot:
    text = f"{mark} ran out of"
    return Plot([said(chance, text, finish="length")], frozenset({"length"}), text=text, requests=1)


def filtered(mark: str, chance: Random) -> Plot:
    text = f"{mark} says something that"
    script = [said(chance, text, finish="content_filter")]
    return Plot(script, frozenset({"content_filter"}), text=text, requests=1)


def nothing(mark: str, chance: Random) -> Plot:
    return Plot([said(chance)], frozenset({"empty"}), text="", requests=1)


# --- the provider's -----------------------------------------------------------------------------

SOON = {"retry-after-ms": "300"}
"""Any sooner, opencode sends its next request on a connection that is just being closed."""


def storm(mark: str, chance: Random) -> Plot:
    """Be refused several times, then answered."""
    status = chance.choice([429, 429, 500, 502, 503, 529])
    times = chance.randint(1, 4)
    return _after([HttpError(status, f"{mark} storm", headers=SOON)] * times, mark, chance)


def storm_in_seconds(mark: str, chance: Random) -> Plot:
    refusal = HttpError(429, f"{mark} storm", headers={"retry-after": "1"})
    return _after([refusal] * chance.randint(1, 2), mark, chance)


def storm_without_hint(mark: str, chance: Random) -> Plot:
    return _after([HttpError(chance.choice([429, 503]), f"{mark} storm")], mark, chance)


def endless_storm(mark: str, chance: Random) -> Plot:
    status = chance.choice([429, 500, 503])
    refusal = Reply(HttpError(status, f"{mark} storm", headers=SOON))
    # A try may get no connection, and reaches nobody.
    return Plot([refusal], frozenset({f"turn-error APIError {status}"}), most=6)


def quota(mark: str, chance: Random) -> Plot:
    refusal = Reply(HttpError(429, f"{mark} quota", headers={"retry-after": "86400"}))
    limit = frozenset({"limit max_retry_wait_s"})
    return Plot([refusal], limit, requests=1, in_run=NEVER)


def refusal(mark: str, chance: Random) -> Plot:
    status = chance.choice([400, 401, 402, 403])
    script = [Reply(HttpError(status, f"{mark} refused"))]
    return Plot(script, frozenset({f"turn-error APIError {status}"}), requests=1)


def late_refusal(mark: str, chance: Random) -> Plot:
    """Be refused in the second step."""
    script = [said(chance, bash(f"echo {mark}")), Reply(HttpError(401, f"{mark} refused"))]
    return Plot(script, frozenset({"turn-error APIError 401"}), requests=2)


def child_refused(mark: str, chance: Random) -> Plot:
    text = f"{mark} goes on"
    return Plot(
        [said(chance, task(mark)), said(chance, text)],
        COMPLETED,
        child=[Reply(HttpError(401, f"{mark} refused"))],
        text=text,
        requests=3,
    )


def child_in_a_storm(mark: str, chance: Random) -> Plot:
    text = f"{mark} goes on"
    waves = [Reply(HttpError(429, f"{mark} storm", headers=SOON))] * chance.randint(1, 3)
    return Plot(
        [said(chance, task(mark)), said(chance, text)],
        COMPLETED,
        child=[*waves, said(chance, f"{mark} child done")],
        text=text,
        requests=3 + len(waves),
    )


def cut_once(mark: str, chance: Random) -> Plot:
    broken = Reply(f"{mark} begins", Cut())
    return _after([broken] * chance.randint(1, 2), mark, chance)


def cut_again_and_again(mark: str, chance: Random) -> Plot:
    return Plot([Reply(f"{mark} begins", Cut())], frozenset({"limit unknown_finishes"}))


def disconnect(mark: str, chance: Random) -> Plot:
    early = chance.random() < 0.5
    broken = Reply(Disconnect()) if early else Reply(f"{mark} begins", Disconnect())
    return _after([broken], mark, chance)


def error_frame(mark: str, chance: Random) -> Plot:
    return _after([Reply(f"{mark} begins", ErrorFrame(f"{mark} frame"))], mark, chance)


def garbage(mark: str, chance: Random) -> Plot:
    rubbish = chance.choice([b"data: {nonsense\n\n", b"data: \xff\xfe\n\n", b'data: "text"\n\n'])
    script = [Reply(f"{mark} begins", Raw(rubbish), " and ends", usage=None)]
    return Plot(script, frozenset({"turn-error UnknownError"}), requests=1)


def comments(mark: str, chance: Random) -> Plot:
    noise = Raw(b": a comment\n\nid: 7\n\nretry: 5\n\nevent: nothing\n\n")
    text = f"{mark} is heard"
    script = [said(chance, noise, f"{mark} is", noise, " heard")]
    return Plot(script, COMPLETED, text=text, requests=1)


def impatience(mark: str, chance: Random) -> Plot:
    """Stall in mid-stream, or before the headers, until opencode itself gives up and asks again."""
    first = Reply(Stall()) if chance.random() < 0.5 else Reply(f"{mark} begins", Stall())
    plot = _after([first], mark, chance)
    return attrs.evolve(plot, options={"model": IMPATIENT})


def silence(mark: str, chance: Random) -> Plot:
    end = frozenset({"limit fail_if_silent"})
    # On a busy machine it is as silent before the request.
    stalled = Reply(*_first_words(mark, chance), Stall())
    return Plot([stalled], end, most=1, options={"fail_if_silent": 2.0})


def _first_words(mark: str, chance: Random) -> list[Raw | str]:
    """Nothing, the headers alone, or some text."""
    words: list[list[Raw | str]] = [[], [Raw(b"")], [f"{mark} begins"]]
    return chance.choice(words)


def stall(mark: str, chance: Random) -> Plot:
    """Never end."""
    stalled = Reply(*_first_words(mark, chance), Stall(chance.choice([None, 0.2])))
    return Plot([stalled], NEVER)


def child_stalls(mark: str, chance: Random) -> Plot:
    return Plot([said(chance, task(mark))], NEVER, child=[Reply(f"{mark} begins", Stall())])


def long_tool(mark: str, chance: Random) -> Plot:
    command = chance.choice([NAP, f"{NAP} & {NAP}; wait", f"setsid {NAP}"])
    return Plot([said(chance, bash(f"{command}; echo {mark}"))], NEVER)


def overflow(mark: str, chance: Random) -> Plot:
    """Be too long for the model, be compacted, and answer."""
    text = f"{mark} answers after all"
    too_long = Reply(HttpError(400, f"{mark} too long", code="context_length_exceeded"))
    summary = said(chance, f"{mark} in short")
    return Plot([too_long, summary, said(chance, text)], COMPLETED, text=text, requests=3)


def _after(bad: Sequence[Any], mark: str, chance: Random) -> Plot:
    """Answer after these replies."""
    text = f"{mark} answers after all"
    script = [item if isinstance(item, Reply) else Reply(item) for item in bad]
    return Plot([*script, said(chance, text)], COMPLETED, text=text, requests=1 + len(bad))


PLOTS: Mapping[str, Builder] = {
    builder.__name__.replace("_", " "): builder
    for builder in (
        plain, thinking, tool, tools, todo, subagent, subagents, huge, drip, long_output,
        background, ask, refused, refused_with_reason, child_asks, question, dismissed,
        child_has_a_question, crashing_handler, child_meets_crashing_handler, silent_handler,
        structured, structured_in_the_end, structured_never, overflow, unknown_tool,
        broken_arguments, loop, costly, cut_short, filtered, nothing, storm, storm_in_seconds,
        storm_without_hint, endless_storm, quota, refusal, late_refusal, child_refused,
        child_in_a_storm, cut_once, cut_again_and_again, disconnect, error_frame, garbage,
        comments, impatience, silence, stall, child_stalls, long_tool,
    )
}  # fmt: skip
