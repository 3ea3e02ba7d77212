"""Rows of Instructor, whose structured outputs are tool calls: https://python.useinstructor.com"""
from collections.abc import Iterable

import instructor
from openai import AsyncOpenAI
from pydantic import BaseModel

from running import CHAT, KEY, MODEL, URL, Report, run_rows


class Place(BaseModel):
    """Where it is."""

    city: str


class Note(BaseModel):
    """A note that has a default."""

    text: str = "made up"


TYPES = {"cut before the arguments": Note}


async def ask(api, stream, scenario, prompt):
    parallel = scenario == "parallel"
    modes = {CHAT: instructor.Mode.PARALLEL_TOOLS if parallel else instructor.Mode.TOOLS,
             "responses": instructor.Mode.RESPONSES_TOOLS}
    client = instructor.from_openai(AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0), mode=modes[api])
    options = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_retries": 0}
    if parallel:
        found = await client.create(response_model=Iterable[Report | Place], **options)
        return [each.model_dump() for each in found]
    kind = TYPES.get(scenario, Report)
    if not stream:
        return await client.create(response_model=kind, **options)
    output = None
    async for output in client.create_partial(response_model=kind, **options):
        pass
    return kind.model_validate(output.model_dump())


SCENARIOS = ["structured", "cut", "cut, reported as complete", "cut before the arguments"]
# Only this mode has several calls, and it reads them in one piece.
run_rows("instructor", ["parallel"], ask, [CHAT], [False])
run_rows("instructor", SCENARIOS, ask, [CHAT, "responses"])
