"""The weather in ten cities: ten agents look it up side by side, and one more sums it up.

    python docs/examples/weather.py
    python docs/examples/weather.py --model anthropic/claude-haiku-4-5 --limit 3

In the first, a script plays the model, and makes up the weather.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import zlib

import trio

from opencode_trio import AgentTask, AsyncOpenCodeClient, RunResult, TextDelta, open_swarm
from opencode_trio.progress import show_progress
from opencode_trio.testing import Delay, ModelRequest, Reply, Text, open_run_config

CITIES = ("Berlin", "Cairo", "Lagos", "Lima", "Mumbai", "Oslo", "Quito", "Seoul", "Sydney", "Tokyo")
LOOK_UP = (
    "How is the weather in {} now? Search the web, and answer in one line with the city, the "
    "temperature in °C, and what the sky looks like."
)
SUM_UP = "Where is it warmest, where coldest, and what is it like in general? Two sentences.\n\n{}"

PERMISSION = {"*": "deny", "websearch": "allow", "webfetch": "allow"}
SEARCH = {"OPENCODE_ENABLE_EXA": "1"}  # without it opencode has no `websearch`
CITY_S, SUMMARY_S = 300, 300


async def main(model: str, limit: int) -> None:
    """Look up the weather, for at most `limit` cities at a time; then sum it up."""
    client = AsyncOpenCodeClient()
    with tempfile.TemporaryDirectory() as directory:
        async with (
            open_run_config(
                model, script=play, permission=PERMISSION, extra_env=SEARCH, snapshot=False
            ) as config,
            client.open_server(directory, run_cfg=config) as server,
        ):
            async with show_progress(open_swarm(server, limit=limit)) as swarm:
                tasks = [AgentTask(LOOK_UP.format(city), name=city) for city in CITIES]
                results: list[RunResult] = await swarm.map(tasks, timeout_s=CITY_S)
            reports = "\n".join(result.final_text.strip() for result in results)
            print(f"\n{reports}\n")

            prompt = SUM_UP.format(reports)
            async with (
                server.open_session() as session,
                session.stream(prompt, timeout_s=SUMMARY_S) as turn,
            ):
                async for event in turn:
                    match event:
                        case TextDelta(delta=delta):
                            print(delta, end="", flush=True)
    spent = swarm.spent.cost_usd + turn.result.total_cost
    print(f"\n\n{len(CITIES) + 1} turns cost ${spent:.4f}.")


# --- without a real model ----------------------------------------------------------------------


def play(request: ModelRequest) -> Reply:
    """Play the model: sum up the reports if there are any, otherwise write one."""
    if found := re.findall(r"^(\w+): (-?\d+) °C", request.prompt, re.MULTILINE):
        degrees = {city: int(number) for city, number in found}
        coldest, *_, warmest = sorted(degrees, key=degrees.__getitem__)
        return Reply(Text(f"It is warmest in {warmest}, and coldest in {coldest}.", delay_s=0.05))
    city = next(city for city in CITIES if city in request.prompt)
    weather = zlib.crc32(city.encode())  # always the same for a city
    sky = ("clear", "cloudy", "rainy")[weather % 3]
    return Reply(Delay(weather % 20 / 10), f"{city}: {weather % 35} °C, {sky}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Report the weather in ten cities.")
    parser.add_argument("--model", default="scripted/weather", metavar="PROVIDER/MODEL")
    parser.add_argument("--limit", type=int, default=10, help="cities at once (default: 10)")
    args = parser.parse_args()
    trio.run(main, args.model, args.limit)
