"""Reasoning, refusals, tools and several turns over the Responses API, with the official `openai` package.

Its types are strict here: every event must be of a type of the package, without a field that the type does not have,
and valid.
"""
import json

import openai

PARTS = "reasoning:6,text:5,call:get_weather+get_time:4,refusal:3"
KINDS = ["reasoning", "message", "function_call", "function_call", "message"]
SCHEMA = {"type": "object", "properties": {"words": {"type": "string"}}, "required": ["words"],
          "additionalProperties": False}
TOOLS = [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False}
         for name in ("get_weather", "get_time")]


def kinds(response):
    return [item.type for item in response.output]


def unknown_fields(model, path=""):
    """The fields of a model, and of the models in it, that its type does not have."""
    found = [f"{path}.{name}" for name in (model.model_extra or {})]
    for name in type(model).model_fields:
        value = getattr(model, name)
        for i, each in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(each, openai.BaseModel):
                found += unknown_fields(each, f"{path}.{name}[{i}]")
    return found


def check_types(events):
    # `background`, `store` and the like are in newer versions of Response only.
    for event in events:
        type(event).model_validate(event.to_dict())
        extra = [field for field in unknown_fields(event) if not field.startswith(".response")]
        assert not extra, f"{event.type}: {extra}"


def checks(client, script):
    def ask(parts, **more):
        return client.responses.create(**{"model": "scripted", "input": "go", "tools": TOOLS,
                                          "metadata": script(parts=parts), **more})

    def parts():
        events = list(ask(PARTS, stream=True, background=True))
        check_types(events)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        response = events[-1].response
        assert events[-1].type == "response.completed" and kinds(response) == KINDS
        assert response.output[4].content[0].type == "refusal"
        assert all(len(json.loads(call.arguments)["words"].split()) == 4 for call in response.output[2:4])
        assert response.usage.output_tokens_details.reasoning_tokens == 6
        assert client.responses.retrieve(response.id).output == response.output
        for after in range(len(events) - 1):
            rest = list(client.responses.retrieve(response.id, stream=True, starting_after=after))
            assert rest == events[after + 1:], after
        with client.responses.stream(model="scripted", input="go", tools=TOOLS,
                                     metadata=script(parts=PARTS)) as stream:
            assert kinds(stream.get_final_response()) == KINDS
        with client.responses.stream(response_id=response.id, starting_after=12) as stream:
            assert [item.id for item in stream.get_final_response().output] == [item.id for item in response.output]
        assert kinds(ask(PARTS)) == KINDS

    def cut_call():
        events = list(ask(PARTS, stream=True, max_output_tokens=15))
        check_types(events)
        response = events[-1].response
        assert events[-1].type == "response.incomplete" and response.output[2].status == "incomplete"
        assert not any(event.type == "response.function_call_arguments.done" for event in events)
        done = [event.item.type for event in events if event.type == "response.output_item.done"]
        assert done == ["reasoning", "message"]

    def turns():
        first = ask("reasoning:3,call:get_weather:2", input="one two", instructions="not taken over")
        call = first.output[1]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "it is warm"}
        second = ask("text:4", input=[result], previous_response_id=first.id)
        # The words of both inputs, and those of the reasoning.
        assert second.usage.input_tokens == 2 + 3 + 3
        third = list(ask("text:1", input="thanks", previous_response_id=second.id, stream=True))[-1].response
        assert third.usage.input_tokens == 8 + 4 + 1
        # The items of a response as they are.
        again = ask("text:1", input=[{"role": "user", "content": "one two"},
                                     *[item.to_dict() for item in first.output], result])
        assert again.usage.input_tokens == 8
        client.responses.delete(first.id)
        try:
            ask("text:1", previous_response_id=third.id)
            raise AssertionError("the chain is broken")
        except openai.NotFoundError as error:
            assert error.code == "previous_response_not_found" and first.id in error.message

    return {"all parts": parts, "cut call": cut_call, "several turns": turns}
