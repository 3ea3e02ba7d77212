"""Rows of LangChain: https://docs.langchain.com/oss/python/langchain/agents"""
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

from running import KEY, MODEL, URL, Report, run_rows, tools_of

# Steps of the graph: each turn is a call of the model and one of its tools.
STEPS = 6


async def ask(api, stream, scenario, prompt):
    model = ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY, max_retries=0, use_responses_api=api == "responses")
    agent = create_agent(model, tools_of(scenario), system_prompt="You answer with tools.",
                         response_format=Report if scenario == "structured" else None)
    asked = {"messages": [{"role": "user", "content": prompt}]}
    config = {"recursion_limit": STEPS}
    if stream:
        state = None
        async for mode, value in agent.astream(asked, config, stream_mode=["messages", "values"]):
            state = value if mode == "values" else state
    else:
        state = await agent.ainvoke(asked, config)
    return state.get("structured_response") or state["messages"][-1].text


run_rows("langchain", ["one", "parallel", "parallel, in turn", "structured", "cut", "cut, reported as complete",
                       "cut before the arguments"], ask, ["chat", "responses"])
