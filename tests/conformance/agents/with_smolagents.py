"""Rows of smolagents: https://huggingface.co/docs/smolagents. Its agent ends with a call of its tool final_answer."""
import asyncio
import logging

from smolagents import OpenAIServerModel, ToolCallingAgent, tool

from running import KEY, MODEL, URL, run_rows, tools_of


def run(stream, scenario, prompt):
    model = OpenAIServerModel(MODEL, api_base=URL, api_key=KEY, client_kwargs={"max_retries": 0})
    agent = ToolCallingAgent(tools=[tool(each) for each in tools_of(scenario)], model=model, stream_outputs=stream,
                             max_steps=2, verbosity_level=-1)
    return agent.run(prompt)


async def ask(api, stream, scenario, prompt):
    return await asyncio.to_thread(run, stream, scenario, prompt)


run_rows("smolagents", ["one", "parallel", "cut", "cut, reported as complete", "cut before the arguments"], ask)
