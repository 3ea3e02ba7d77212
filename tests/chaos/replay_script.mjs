// A script for the upstream engine: its prompt says what the server of replay_server.mjs responds.
import { Script } from './script.mjs';

export class ReplayScript extends Script {
  constructor(options) {
    super({ ...options, segments: undefined, maxTokens: undefined, choices: 1, failAt: -1 });
    const { seed, tokens, pace, firstTokenMs } = this;
    this.prompt = JSON.stringify({ seed, tokens, pace, firstTokenMs });
  }

  metadata() {
    return {};
  }
}
