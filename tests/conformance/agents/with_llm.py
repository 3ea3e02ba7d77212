"""Rows of llm: https://llm.datasette.io"""
import asyncio
import os
import pathlib
import tempfile

from running import CHAT, KEY, MODEL, URL, Report, run_rows, tools_of

# Read when llm is imported.
os.environ["LLM_USER_PATH"] = tempfile.mkdtemp(prefix="runnel-llm-")
pathlib.Path(os.environ["LLM_USER_PATH"], "extra-openai-models.yaml").write_text(f"""
- model_id: runnel
  model_name: {MODEL}
  api_base: {URL}
  supports_tools: true
  supports_schema: true
""")
import llm  # noqa: E402


def chain(stream, scenario, prompt):
    model = llm.get_model("runnel")
    model.key = KEY
    if scenario == "structured":
        return Report.model_validate_json(model.prompt(prompt, schema=Report, stream=stream).text())
    return model.conversation().chain(prompt, tools=tools_of(scenario), stream=stream, chain_limit=3).text()


async def ask(api, stream, scenario, prompt):
    return await asyncio.to_thread(chain, stream, scenario, prompt)


run_rows("llm", ["one", "parallel", "structured", "cut", "cut, reported as complete", "cut before the arguments"], ask)
