// Compiled, never run: a program as users write it, so that runnel.d.ts declares everything that they rely on.
import {
  attach, crc32, GenerationStream, RunnelError, SseParser, stream, Transcript,
  type GenerationEvent, type Notice, type Progress, type Result, type StreamOptions,
} from '../../bridges/web/runnel.js';

function describe(notice: Notice): string {
  switch (notice.type) {
    case 'progress': return `${notice.stage} ${notice.queuePosition ?? ''} ${notice.prefillShare ?? ''}`;
    case 'buffered': return `${notice.transport} is held back; try ${notice.offer ?? 'nothing'}`;
    case 'waiting': return `${notice.ms} ms: ${notice.error.message}`;
    case 'offline':
    case 'online': return notice.type;
  }
}

export async function read(show: (text: string) => void): Promise<Result> {
  const options: StreamOptions = {
    transport: 'websocket', onBuffered: 'switch', token: async () => 'secret',
    onNotice: (notice, source) => {
      show(describe(notice));
      if (notice.type === 'buffered' && notice.offer) source.switchTransport(notice.offer);
    },
  };
  const response: GenerationStream = stream({ messages: [{ role: 'user', content: 'why?' }], max_tokens: 9 }, options);
  const progress: Progress | null = response.progress;
  show(String(progress?.queuePosition));
  for await (const event of response) show(textOf(event));
  const { cursor } = response;
  return attach(cursor.id ?? '', cursor).result;
}

function textOf(event: GenerationEvent): string {
  if (event.type === 'gap') return event.snapshot?.choices[0]?.text ?? '';
  return event.type === 'delta' ? event.text : '';
}

export function mayAskAgain(error: unknown): boolean {
  return error instanceof RunnelError && error.retryable;
}

export const parser = new SseParser((comment) => comment.trim());
export const digest: number = crc32(new TextEncoder().encode(new Transcript({ after: 0 }).text()));

// @ts-expect-error: unknown transport
stream('why?', { transport: 'pigeon' });
// @ts-expect-error: the status is read-only
attach('gen_x').status = 'verified';
