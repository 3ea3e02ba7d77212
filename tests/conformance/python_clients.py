"""The official `openai` package for Python, and `websockets`.

Prints a line of JSON for each check: client, feature, error (null if the check passes). The environment has Runnel's
addresses (RUNNEL_URL, RUNNEL_WS_URL, RUNNEL_ADMIN of the service), the expected text (RUNNEL_TEXT), a stop string in it
(RUNNEL_STOP) and the length of the silence (RUNNEL_SILENCE_MS).
"""
import asyncio
import json
import os
import time
import urllib.request

import openai
import websockets

import python_responses

URL = os.environ["RUNNEL_URL"]
WS_URL = os.environ["RUNNEL_WS_URL"]
ADMIN = os.environ["RUNNEL_ADMIN"]
TEXT = os.environ["RUNNEL_TEXT"]
STOP = os.environ["RUNNEL_STOP"]
BEFORE = TEXT[:TEXT.index(STOP)]
SILENCE_MS = int(os.environ["RUNNEL_SILENCE_MS"])
PATIENCE_S = 15
LOGPROBS = "message.output_text.logprobs"
MESSAGES = [{"role": "user", "content": "go"}]

client = openai.OpenAI(api_key="any-key", base_url=f"{URL}/v1", max_retries=0)


def script(tokens=12, pace=2000, **more):
    metadata = {"scripted.tokens": tokens, "scripted.tokens_per_second": pace, "scripted.first_token_ms": 0}
    metadata.update({f"scripted.{key}": value for key, value in more.items()})
    return {key: str(value) for key, value in metadata.items()}


def metric(name):
    with urllib.request.urlopen(f"http://{ADMIN}/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))


def check_cancels(abort, more=1):
    """Runs `abort`; then `more` additional generations must have been cancelled and none may be running."""
    before = metric("runnel_cancels_total")
    abort()
    deadline = time.monotonic() + PATIENCE_S
    while metric("runnel_cancels_total") != before + more or metric("runnel_requests_running") != 0:
        assert time.monotonic() < deadline, "the generation was not cancelled"
        time.sleep(0.02)


def chat(**more):
    return client.chat.completions.create(**{
        "model": "scripted", "messages": MESSAGES, "seed": 7, "metadata": script(), **more})


def join(stream):
    return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)


def rejects(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def streaming():
    assert join(chat(stream=True)) == TEXT
    with client.chat.completions.stream(model="scripted", messages=MESSAGES, seed=7, metadata=script()) as helper:
        assert helper.get_final_completion().choices[0].message.content == TEXT
    legacy = client.completions.create(model="scripted", prompt="go", seed=7, max_tokens=12, stream=True,
                                       extra_body={"metadata": script()})
    assert "".join(chunk.choices[0].text for chunk in legacy) == TEXT


def one_piece():
    response = chat()
    assert response.choices[0].message.content == TEXT
    assert response._request_id.startswith("req_")
    assert [model.id for model in client.models.list()] == ["scripted"]
    assert client.models.retrieve("scripted").id == "scripted"


def two_choices():
    texts = [choice.message.content for choice in chat(n=2).choices]
    assert len(texts) == 2 and texts[0] == TEXT and texts[1] != TEXT
    with client.chat.completions.stream(model="scripted", messages=MESSAGES, seed=7, n=2, metadata=script()) as helper:
        assert [choice.message.content for choice in helper.get_final_completion().choices] == texts


def several_prompts():
    ask = {"model": "scripted", "prompt": ["go", "and go on"], "n": 2, "seed": 7, "extra_body": {"metadata": script()}}
    whole = client.completions.create(**ask)
    texts = [choice.text for choice in whole.choices]
    assert [(choice.index, choice.finish_reason) for choice in whole.choices] == [(i, "stop") for i in range(4)]
    # The scripted engine's text depends on the seed, not on the prompt.
    assert texts[0] == TEXT and texts[1] != TEXT and texts[2:] == texts[:2]
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (4, 48)
    read = [""] * 4
    chunks = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks:
        for choice in chunk.choices:
            read[choice.index] += choice.text
    assert read == texts and chunks[-1].usage == whole.usage
    ask["extra_body"] = {"metadata": script(tokens=100000, pace=50)}

    def leave():
        with client.completions.create(**ask, max_tokens=100000, stream=True) as stream:
            seen = set()
            while len(seen) < 4:
                seen.add(next(stream).choices[0].index)
    check_cancels(leave, 2)


def usage():
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (1, 12)
    assert all(chunk.usage is None for chunk in chunks[:-1])


def finish():
    assert chat(stop=["never said"]).choices[0].finish_reason == "stop"
    assert chat(max_tokens=3).choices[0].finish_reason == "length"


def stop():
    response = chat(stop=STOP)
    assert (response.choices[0].message.content, response.choices[0].finish_reason) == (BEFORE, "stop")
    assert response.usage.completion_tokens == len(BEFORE.split(" "))
    assert join(chat(stop=["never said", STOP], stream=True)) == BEFORE
    with client.chat.completions.stream(model="scripted", messages=MESSAGES, seed=7, n=2, stop=[STOP],
                                        metadata=script()) as helper:
        first, second = helper.get_final_completion().choices
    assert (first.message.content, first.finish_reason) == (BEFORE, "stop")
    assert second.message.content and STOP not in second.message.content
    legacy = {"model": "scripted", "prompt": "go", "seed": 7, "stop": STOP, "extra_body": {"metadata": script()}}
    assert client.completions.create(**legacy).choices[0].text == BEFORE
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**legacy, stream=True)) == BEFORE


PARAMETERS = {"type": "object", "properties": {"words": {"type": "string"}}, "required": ["words"],
              "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": name, "description": "x", "parameters": PARAMETERS, "strict": True}}
         for name in ("get_weather", "get_time")]
ONE_CALL = {"tools": TOOLS, "metadata": script(parts="call:get_weather:3")}
TWO_CALLS = {"tools": TOOLS, "metadata": script(parts="text:3,call:get_weather+get_time:4")}
# One call after the other: the helper takes a change of index for the end of a call.
TWO_IN_TURN = {"tools": TOOLS, "metadata": script(parts="text:3,call:get_weather:4,call:get_time:4")}
THINKING = {"metadata": script(parts="reasoning:4,text:5")}


def check_arguments(text, words):
    value = json.loads(text)
    assert list(value) == ["words"] and len(value["words"].split(" ")) == words, text


def tools():
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", "auto", named):
        reply = chat(**ONE_CALL, tool_choice=choice).choices[0]
        assert (reply.message.content, reply.finish_reason) == (None, "tool_calls")
        (call,) = reply.message.tool_calls
        assert (call.type, call.function.name) == ("function", "get_weather") and call.id.startswith("call_")
        check_arguments(call.function.arguments, 3)
    parsed = client.chat.completions.parse(model="scripted", messages=MESSAGES, seed=7, **ONE_CALL)
    assert list(parsed.choices[0].message.tool_calls[0].function.parsed_arguments) == ["words"]


def parallel_calls():
    whole = chat(**TWO_IN_TURN, parallel_tool_calls=True).choices[0].message
    assert [call.function.name for call in whole.tool_calls] == ["get_weather", "get_time"]
    for call in whole.tool_calls:
        check_arguments(call.function.arguments, 4)
    with client.chat.completions.stream(model="scripted", messages=MESSAGES, seed=7, **TWO_IN_TURN) as helper:
        ended = [event for event in helper if event.type == "tool_calls.function.arguments.done"]
        message = helper.get_final_completion().choices[0].message
    assert [event.index for event in ended] == [0, 1]
    assert [(call.id, call.function.arguments) for call in message.tool_calls] == [
        (call.id, call.function.arguments) for call in whole.tool_calls]
    assert message.content == whole.content


def streamed_arguments():
    calls = {}
    for chunk in chat(**TWO_CALLS, stream=True):
        for fragment in chunk.choices[0].delta.tool_calls or []:
            if fragment.index not in calls:
                assert fragment.type == "function" and fragment.id and fragment.function.arguments == ""
                calls[fragment.index] = [fragment.function.name, ""]
            else:
                assert fragment.id is None and fragment.function.name is None
                calls[fragment.index][1] += fragment.function.arguments
    assert chunk.choices[0].finish_reason == "tool_calls"
    assert [calls[index][0] for index in sorted(calls)] == ["get_weather", "get_time"]
    for _, arguments in calls.values():
        check_arguments(arguments, 4)
    cut = chat(**ONE_CALL, max_tokens=2).choices[0]
    assert (cut.finish_reason, cut.message.tool_calls) == ("length", None)
    assert [chunk.choices[0].finish_reason for chunk in chat(**ONE_CALL, max_tokens=2, stream=True)][-1] == "length"


def tool_results():
    called = chat(**ONE_CALL).choices[0].message
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "sunny"}
    assert chat(messages=[*MESSAGES, called, result], tools=TOOLS).choices[0].message.content == TEXT
    error = rejects(openai.BadRequestError, lambda: chat(messages=[*MESSAGES, called, {**result, "tool_call_id": ""}]))
    assert error.param == "messages[2].tool_call_id"


def reasoning():
    whole = chat(**THINKING, reasoning_effort="low")
    message = whole.choices[0].message
    assert len(message.reasoning_content.split(" ")) == 4 and message.reasoning == message.reasoning_content
    assert len(message.content.split(" ")) == 5
    assert whole.usage.completion_tokens_details.reasoning_tokens == 4
    deltas = [chunk.choices[0].delta for chunk in chat(**THINKING, stream=True)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == message.content


def images():
    def ask(url):
        parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]
        return rejects(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": parts}]))
    error = ask("data:image/png;base64,AAAA")
    assert (error.param, error.code) == ("messages[0].content", "unsupported_parameter")
    assert ask("https://example.com/a.png").param == "messages[0].content[1].image_url.url"


def error_before():
    assert rejects(openai.NotFoundError, lambda: chat(model="none")).code == "model_not_found"
    assert rejects(openai.BadRequestError, lambda: chat(temperature=9, stream=True)).param == "temperature"


def error_within():
    error = rejects(openai.APIError, lambda: join(chat(stream=True, metadata=script(fail_at=5))))
    assert error.code == "engine_failed"


def silence():
    assert join(chat(stream=True, metadata=script(first_token_ms=SILENCE_MS))) == TEXT


def abort():
    def leave():
        with chat(stream=True, max_tokens=100000, metadata=script(tokens=100000, pace=50)) as stream:
            for chunk in stream:
                if chunk.choices[0].delta.content:
                    return
    check_cancels(leave)


def check_response_logprobs():
    asked = {"model": "scripted", "input": "go", "include": [LOGPROBS], "top_logprobs": 2, "metadata": script()}
    events = list(client.responses.create(**asked, background=True, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    part = events[-1].response.output[0].content[0]
    assert "".join(each.token for each in part.logprobs) == part.text
    assert all(each.logprob <= 0 and len(each.top_logprobs) == 2 for each in part.logprobs)
    assert [(each.token, each.logprob) for event in events if event.type == "response.output_text.delta"
            for each in event.logprobs] == [(each.token, each.logprob) for each in part.logprobs]
    kept = client.responses.retrieve(events[0].response.id, include=[LOGPROBS])
    assert kept.output[0].content[0] == part and kept.top_logprobs == 2
    whole = client.responses.create(**asked, store=False).output[0].content[0]
    assert len(whole.logprobs) == 12


def background():
    asked = client.responses.create(model="scripted", input="go", background=True, stream=True,
                                    metadata=script(tokens=60, pace=200))
    events = []
    for event in asked:
        events.append(event)
        if event.sequence_number == 10:
            break
    asked.close()
    response_id = events[0].response.id
    events += client.responses.retrieve(response_id, stream=True, starting_after=10)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type == "response.completed" and events[-1].response.output_text == text
    assert client.responses.retrieve(response_id).output_text == text
    with client.responses.stream(response_id=response_id, starting_after=20) as helper:
        assert helper.get_final_response().output_text == text
    client.responses.delete(response_id)
    rejects(openai.NotFoundError, lambda: client.responses.retrieve(response_id))
    check_response_logprobs()
    long = client.responses.create(model="scripted", input="go", background=True,
                                   metadata=script(tokens=100000, pace=50))
    assert client.responses.cancel(long.id).status == "cancelled"


async def read_ws(first, events, leave_at=None):
    async with websockets.connect(WS_URL, subprotocols=["runnel.v1"]) as socket:
        await socket.send(json.dumps(first))
        async for data in socket:
            message = json.loads(data)
            assert message["type"] != "error", message["error"]["message"]
            if message["type"] in ("hello", "attached", "heartbeat"):
                continue
            last = events[-1]["seq"] if events else 0
            assert message.get("first_seq", message["seq"]) == last + 1
            events.append(message)
            if message.get("final") or len(events) == leave_at:
                return events
    raise AssertionError("the socket was closed before the end")


def generate(metadata, leave_at=None, **more):
    body = {"messages": MESSAGES, "seed": 7, "max_tokens": 100000, "metadata": metadata, **more}
    return asyncio.run(read_ws({"type": "generate", "req": "a", "body": body}, [], leave_at))


def text_of(events):
    return "".join(event.get("text", "") for event in events)


def ws_error_before():
    assert "temperature" in str(rejects(AssertionError, lambda: generate(script(), temperature=9)))


def ws_error_within():
    assert generate(script(fail_at=5))[-1]["type"] == "failed"


def ws_streaming():
    assert text_of(generate(script())) == TEXT


def ws_silence():
    assert text_of(generate(script(first_token_ms=SILENCE_MS))) == TEXT


def ws_abort():
    check_cancels(lambda: generate(script(tokens=100000, pace=50), leave_at=5, detach={"cancel_after_ms": 0}))


def ws_resume():
    events = generate(script(tokens=60, pace=200), leave_at=10)
    resume = {"type": "resume", "req": "b", "gen": events[0]["gen"], "after": events[-1]["seq"]}
    asyncio.run(read_ws(resume, events))
    assert events[-1]["seq"] == 62


CHECKS = {
    f"openai {openai.__version__} (Python)": {
        "streaming": streaming, "one piece": one_piece, "n = 2": two_choices, "several prompts": several_prompts,
        "usage": usage, "finish": finish, "stop": stop, "tools": tools, "parallel calls": parallel_calls,
        "streamed arguments": streamed_arguments, "tool results": tool_results, "reasoning": reasoning,
        "images": images,
        "error before": error_before, "error within": error_within, "silence": silence, "abort": abort,
        "background, resume": background, **python_responses.checks(client, script)},
    f"websockets {websockets.__version__} (Python)": {
        "streaming": ws_streaming, "error before": ws_error_before, "error within": ws_error_within,
        "silence": ws_silence, "abort": ws_abort, "background, resume": ws_resume},
}

for name, features in CHECKS.items():
    for feature, check in features.items():
        error = None
        try:
            check()
        except Exception as failure:  # any failure is a result
            error = f"{type(failure).__name__}: {failure}"
        print(json.dumps({"client": name, "feature": feature, "error": error}), flush=True)
