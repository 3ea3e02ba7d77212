"""What the clients of the agent frameworks have in common: their tools, and the loop over their rows.

A client prints a line of JSON for each row: api, stream, scenario, run, the tools that were executed with their
arguments, the output, and the error as its type and text. agents.test.mjs judges them. The environment has the address
of the API (RUNNEL_URL, with /v1) and whether Responses is tested (RUNNEL_RESPONSES=1).
"""
import asyncio
import json
import os
import sys
import threading

from pydantic import BaseModel

URL = os.environ["RUNNEL_URL"]
KEY = "any-key"
MODEL = "fake-model"
CHAT = "chat"
APIS = [CHAT, "responses"] if os.environ.get("RUNNEL_RESPONSES") == "1" else [CHAT]
PATIENCE_S = 60

lock = threading.Lock()
executed = []


class Report(BaseModel):
    """The final report."""

    city: str
    temperature: int


def record(name, **arguments):
    with lock:
        executed.append([name, arguments])


def get_weather(city: str) -> str:
    """Returns the weather of a city.

    Args:
        city: The name of the city.
    """
    record("get_weather", city=city)
    return f"weather of {city}: sunny"


def get_time(city: str) -> str:
    """Returns the time in a city.

    Args:
        city: The name of the city.
    """
    record("get_time", city=city)
    return f"time in {city}: noon"


def get_news() -> str:
    """Returns the news."""
    record("get_news")
    return "news: none"


PARALLEL = [get_weather, get_time]
TOOLS = {"parallel": PARALLEL, "parallel, in turn": PARALLEL, "cut before the arguments": [get_news]}


def tools_of(scenario):
    return TOOLS.get(scenario, [get_weather])


def printable(output):
    return output.model_dump() if isinstance(output, BaseModel) else output


async def run_row(name, api, stream, scenario, ask):
    run = f"{name}/{api}/{'stream' if stream else 'whole'}"
    row = {"api": api, "stream": stream, "scenario": scenario, "run": run, "output": None, "error": None}
    executed.clear()
    try:
        prompt = f"[{scenario}|{run}] What do you know about the city?"
        row["output"] = printable(await asyncio.wait_for(ask(api, stream, scenario, prompt), PATIENCE_S))
    except Exception as failure:  # any failure is a result
        row["error"] = [type(failure).__name__, str(failure)[:2000]]
    row["executed"] = list(executed)
    print(json.dumps(row), file=sys.__stdout__, flush=True)


def run_rows(name, scenarios, ask, apis=(CHAT,), streams=(False, True)):
    """`ask(api, stream, scenario, prompt)` runs an agent to its end and returns its output."""
    async def run_all():
        for api in [each for each in APIS if each in apis]:
            for scenario in scenarios:
                for stream in streams:
                    await run_row(name, api, stream, scenario, ask)
    asyncio.run(run_all())
