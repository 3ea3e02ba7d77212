// The list of models and the notice about it.

const RETRY_MS = 2000;

const byId = (id) => document.getElementById(id);

let models = [];

export function notice(text) {
  byId('notice').textContent = text;
  byId('notice').hidden = text === '';
}

export function isScripted() {
  return models.find(({ id }) => id === byId('model').value)?.engine === 'scripted';
}

export function showEngine() {
  byId('engine-mark').hidden = !isScripted();
  for (const field of document.querySelectorAll('[data-scripted]')) field.hidden = !isScripted();
}

function describeModels() {
  if (models.length === 0) return 'The service has no model.';
  if (models.some(({ engine }) => engine !== 'scripted')) return '';
  return 'No language model is loaded. The scripted engine plays the same words whatever you ask.';
}

async function loadModels() {
  const response = await fetch('/v1/models', { headers: { accept: 'application/json' } });
  if (!response.ok) throw new Error(`the models could not be listed: status ${response.status}`);
  models = (await response.json()).data;
  byId('model').replaceChildren(...models.map(({ id }) => new Option(id, id)));
  byId('model').disabled = models.length === 0;
  byId('send').disabled = models.length === 0;
  notice(describeModels());
  showEngine();
}

/** Fills the list of models. The page is often open before the service is ready. */
export async function loadModelsWithRetry() {
  for (;;) {
    try {
      return await loadModels();
    } catch (error) {
      notice(`${error.message}. Trying again…`);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
