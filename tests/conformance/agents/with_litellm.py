"""Rows of LiteLLM: https://docs.litellm.ai. It does not execute tools, so this file has the loop of its documentation."""
import json

import litellm
from pydantic import BaseModel

from running import CHAT, KEY, MODEL, URL, Report, run_rows, tools_of

TURNS = 3
OPTIONS = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": KEY, "max_retries": 0}


def schema_of(tool):
    names = [name for name in tool.__annotations__ if name != "return"]
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}


def function_of(tool):
    return {"name": tool.__name__, "description": tool.__doc__.splitlines()[0], "parameters": schema_of(tool)}


def output_function():
    return {"name": "final_report", "description": Report.__doc__, "parameters": Report.model_json_schema()}


def execute(name, arguments, tools):
    """What a tool returns; a call that is not JSON is an error of the program."""
    return next(tool for tool in tools if tool.__name__ == name)(**json.loads(arguments or "{}"))


async def complete(stream, **options):
    response = await litellm.acompletion(**OPTIONS, **options, stream=stream)
    if stream:
        response = litellm.stream_chunk_builder([chunk async for chunk in response], messages=options["messages"])
    return response.choices[0]


async def ask_chat(stream, scenario, prompt):
    tools = tools_of(scenario)
    functions = [function_of(tool) for tool in tools] + ([output_function()] if scenario == "structured" else [])
    messages = [{"role": "user", "content": prompt}]
    for _ in range(TURNS):
        choice = await complete(stream, messages=messages, tools=[{"type": "function", "function": each} for each in functions])
        if not choice.message.tool_calls:
            return choice.message.content or f"finish reason {choice.finish_reason}"
        messages.append(choice.message)
        for call in choice.message.tool_calls:
            if call.function.name == "final_report":
                return Report.model_validate_json(call.function.arguments)
            if choice.finish_reason != "tool_calls":
                raise RuntimeError(f"a call, but finish reason {choice.finish_reason}")
            content = execute(call.function.name, call.function.arguments, tools)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    raise RuntimeError("too many turns")


async def respond(stream, **options):
    response = await litellm.aresponses(**OPTIONS, **options, stream=stream)
    if stream:
        async for event in response:
            if event.type in ("response.completed", "response.incomplete", "response.failed"):
                return event.response
    return response


def plain(item):
    return item.model_dump(exclude_none=True) if isinstance(item, BaseModel) else item


async def ask_responses(stream, scenario, prompt):
    tools = tools_of(scenario)
    functions = [function_of(tool) for tool in tools] + ([output_function()] if scenario == "structured" else [])
    items = [{"role": "user", "content": prompt}]
    for _ in range(TURNS):
        response = await respond(stream, input=items, tools=[{"type": "function", "strict": None, **each} for each in functions])
        if response.status != "completed":
            raise RuntimeError(f"status {response.status}")
        output = [plain(item) for item in response.output]
        calls = [item for item in output if item["type"] == "function_call"]
        if not calls:
            return "".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])
        items += output
        for call in calls:
            if call["name"] == "final_report":
                return Report.model_validate_json(call["arguments"])
            items.append({"type": "function_call_output", "call_id": call["call_id"],
                          "output": execute(call["name"], call["arguments"], tools)})
    raise RuntimeError("too many turns")


async def ask(api, stream, scenario, prompt):
    return await (ask_chat if api == CHAT else ask_responses)(stream, scenario, prompt)


run_rows("litellm", ["one", "parallel", "structured", "cut", "cut, reported as complete", "cut before the arguments"], ask,
         [CHAT, "responses"])
