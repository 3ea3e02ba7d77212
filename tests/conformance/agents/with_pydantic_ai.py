"""Rows of pydantic-ai: https://ai.pydantic.dev"""
from pydantic_ai import Agent, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from running import KEY, MODEL, URL, Report, run_rows, tools_of

MODELS = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}


async def ask(api, stream, scenario, prompt):
    model = MODELS[api](MODEL, provider=OpenAIProvider(base_url=URL, api_key=KEY))
    agent = Agent(model, instructions="You answer with tools.", tools=tools_of(scenario),
                  output_type=ToolOutput(Report) if scenario == "structured" else str)
    if not stream:
        return (await agent.run(prompt)).output
    async with agent.run_stream(prompt) as result:
        return await result.get_output()


run_rows("pydantic-ai", ["one", "parallel", "structured", "cut", "cut, reported as complete", "cut before the arguments"],
         ask, MODELS)
