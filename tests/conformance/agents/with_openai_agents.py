"""Rows of openai-agents: https://openai.github.io/openai-agents-python/"""
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

from running import KEY, MODEL, URL, Report, run_rows, tools_of

MODELS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}
TURNS = 3


async def ask(api, stream, scenario, prompt):
    client = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)
    agent = Agent(name="helper", instructions="You answer with tools.", model=MODELS[api](MODEL, client),
                  tools=[function_tool(tool) for tool in tools_of(scenario)],
                  output_type=Report if scenario == "structured" else None)
    if not stream:
        return (await Runner.run(agent, prompt, max_turns=TURNS)).final_output
    result = Runner.run_streamed(agent, prompt, max_turns=TURNS)
    async for _ in result.stream_events():
        pass
    return result.final_output


set_tracing_disabled(True)
run_rows("openai-agents", ["one", "parallel", "structured", "cut", "cut, reported as complete", "cut before the arguments"],
         ask, MODELS)
