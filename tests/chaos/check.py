"""The checker: what must hold of a turn that is over.  Pure: reports in, complaints out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import attrs

from chaos.allowed import allowed
from chaos.ends import RESULTS
from chaos.markers import markers_in
from chaos.plots import Plot
from opencode_trio import RunResult
from opencode_trio.testing import Prices, Usage
from opencode_trio.testing._usage import sum_usage

BLIND = 100
"""Requests of an endless loop in the half minute until a muted stream is found to be: so long no
guard can see them."""


@attrs.frozen
class Entry:
    """One request at the model: of a turn, or of one of its subagents."""

    session_id: str
    role: str
    charged: Usage | None
    """What was reported to have been used; `None` if the reply was not sent to its end."""


@attrs.frozen
class Report:
    """What came of a turn, as its caller saw it."""

    mark: str
    twist: str
    end: str
    result: RunResult | None = None
    """The result, or the partial one of an error."""
    gusts: frozenset[str] = frozenset()
    """What happened to its server meanwhile."""
    more_ends: frozenset[str] = frozenset()
    """Ends that its surroundings allow: the budget of its swarm, say."""
    is_run: bool = False
    has_begun: bool = True
    """Whether it came so far that a turn had begun."""
    attempts: int = 1
    asks: int | None = None
    """How often its handlers were asked; `None` if it has none."""
    foreign: frozenset[str] = frozenset()
    """Markers of other turns that were seen in its events and asks."""
    error: str = ""
    """The error in full, for who reads the complaint."""


def complaints(report: Report, plot: Plot, entries: Sequence[Entry], prices: Prices) -> list[str]:
    """Say what must not be, of a turn that is over and quiet."""
    found = [
        *_about_its_end(report, plot),
        *_about_strangers(report),
        *_about_requests(report, plot, entries),
    ]
    if report.result is not None:
        found += _about_the_result(report, report.result, plot)
        found += _about_costs(report, report.result, entries, prices, plot)
    return [f"{report.mark}: {text}" for text in found]


def _about_its_end(report: Report, plot: Plot) -> Iterable[str]:
    ends = plot.ends_in(is_run=report.is_run) if report.has_begun else {"opened"}
    may = allowed(ends, report.twist, report.gusts, opening=not report.has_begun)
    may |= report.more_ends
    if _may_lose_its_child(report, plot):
        may |= {"completed"}
    if report.end not in may:
        yield f"ended as {report.end!r}, allowed was {sorted(may)}: {report.error}"


def _about_strangers(report: Report) -> Iterable[str]:
    if report.foreign:
        yield f"saw words of {sorted(report.foreign)}"


def _about_the_result(report: Report, result: RunResult, plot: Plot) -> Iterable[str]:
    outputs = (str(call) for call in result.tool_calls)
    strangers = markers_in(result.text, result.final_text, *outputs) - {report.mark}
    if strangers:
        yield f"its result has words of {sorted(strangers)}"
    if report.end not in RESULTS:
        return
    if plot.text is not None and result.final_text != plot.text:
        yield f"answered {result.final_text[:200]!r} for {plot.text[:200]!r}"
    if result.stop_reason != report.end:
        yield f"its stop_reason is {result.stop_reason!r}"


def _about_requests(report: Report, plot: Plot, entries: Sequence[Entry]) -> Iterable[str]:
    roots = {entry.session_id for entry in entries if entry.role == "root"}
    if len(roots) > report.attempts:
        yield f"was done in {len(roots)} sessions, but says attempts={report.attempts}"
    most = (plot.requests or plot.most) * max(1, report.attempts)
    if plot.requests is None and "mute events" in report.gusts:
        most += BLIND
    if len(entries) > most:
        yield f"asked the model {len(entries)} times, at most {most} were due"
    is_certain = report.attempts == 1 and not _may_lose_its_child(report, plot)
    exact = is_certain and report.end in plot.ends_in(is_run=report.is_run)
    if exact and plot.requests is not None and len(entries) != plot.requests:
        yield f"asked the model {len(entries)} times, {plot.requests} were due"
    if exact and report.asks not in {None, plot.asks}:
        yield f"asked its handlers {report.asks} times, {plot.asks} were due"


def _about_costs(
    report: Report, result: RunResult, entries: Sequence[Entry], prices: Prices, plot: Plot
) -> Iterable[str]:
    """Compare the result's costs with what the model charged the result's sessions."""
    mine = [entry for entry in entries if _counts(entry, result, report)]
    charged = [entry.charged for entry in mine if entry.charged is not None]
    cost = sum(map(prices.cost_usd, charged))
    if _is_exact(report, plot):
        if not math.isclose(result.total_cost, cost, abs_tol=1e-9):
            yield f"cost ${result.total_cost:.6f}, the model charged ${cost:.6f}"
        if _tokens(result) != sum_usage(charged):
            yield f"took {_tokens(result)}, the model charged {sum_usage(charged)}"
    elif result.total_cost > cost + 1e-9:
        yield f"cost ${result.total_cost:.6f}, and the model charged only ${cost:.6f}"


def _counts(entry: Entry, result: RunResult, report: Report) -> bool:
    if report.is_run:
        return entry.role == "root"  # a run does not tell of its subagents
    if report.attempts == 1:
        return True
    return entry.session_id in {result.session_id, *result.cost_by_session}


def _may_lose_its_child(report: Report, plot: Plot) -> bool:
    """Whether an abort may have hit a subagent alone: of one that waits for an answer the parent
    goes on, and is aborted only by the next."""
    return report.twist == "third party" and plot.child_waits


def _is_exact(report: Report, plot: Plot) -> bool:
    """Whether nothing was broken off that the model may have charged for."""
    if _may_lose_its_child(report, plot):
        return False
    return report.end in RESULTS or report.end.startswith("turn-error")


def _tokens(result: RunResult) -> Usage:
    usage = result.token_usage
    return Usage(usage.input, usage.output, usage.reasoning, usage.cache_read)
