// What the clients in JavaScript have in common: their tools, and the loop over their rows. Prints what running.py
// describes.
import { z } from 'zod';

const { RUNNEL_URL, RUNNEL_RESPONSES } = process.env;
const SCENARIOS = ['one', 'parallel', 'structured', 'cut', 'cut, reported as complete', 'cut before the arguments'];
export const URL = RUNNEL_URL;
export const KEY = 'any-key';
export const MODEL = 'fake-model';
export const Report = z.object({ city: z.string(), temperature: z.number().int() });
let executed = [];

/** The tools of a scenario, made by `make(name, parameters, execute)`. */
export function toolsOf(scenario, make) {
  const recorded = (name, parameters, say) => make(name, z.object(parameters), (input) => {
    executed.push([name, input]);
    return say(input);
  });
  const weather = recorded('get_weather', { city: z.string() }, ({ city }) => `weather of ${city}: sunny`);
  const time = recorded('get_time', { city: z.string() }, ({ city }) => `time in ${city}: noon`);
  const news = recorded('get_news', {}, () => 'news: none');
  return { parallel: [weather, time], 'cut before the arguments': [news] }[scenario] ?? [weather];
}

/** `ask(api, stream, scenario, prompt)` runs an agent to its end and returns its output. */
export async function runRows(name, ask) {
  for (const api of RUNNEL_RESPONSES === '1' ? ['chat', 'responses'] : ['chat']) {
    for (const scenario of SCENARIOS) {
      for (const stream of [false, true]) {
        const run = `${name}/${api}/${stream ? 'stream' : 'whole'}`;
        const row = { api, stream, scenario, run, output: null, error: null };
        executed = [];
        try {
          row.output = await ask(api, stream, scenario, `[${scenario}|${run}] What do you know about the city?`) ?? null;
        } catch (error) {
          row.error = [error.constructor.name, error.message];
        }
        console.log(JSON.stringify({ ...row, executed }));
      }
    }
  }
}
