// Compiled, never run: the types that TypeScript derives from runnel.js (`code`) agree with those that runnel.d.ts
// declares, in both directions. types.test.mjs provides ./code/, the derived declarations.
import * as code from './code/runnel.js';
import * as declared from '../../bridges/web/runnel.js';

/** The public members of a class, which can be compared although the class has private ones. */
type Public<T> = Pick<T, keyof T>;
/** A function with the private members taken from its result. */
type Call<F> = F extends (...args: infer A) => infer R ? (...args: A) => Public<R> : never;
type IsAny<T> = 0 extends 1 & T ? true : false;
/** Members whose type could not be derived, so that comparing them would prove nothing. */
type Untyped<T> = { [K in keyof T]-?: IsAny<T[K]> extends true ? K : never }[keyof T];

declare function value<T>(): T;

interface Code {
  names: keyof typeof code;
  GenerationStream: Public<code.GenerationStream>;
  RunnelError: Public<code.RunnelError>;
  SseParser: Public<code.SseParser>;
  Transcript: Public<code.Transcript>;
  newRunnelError: ConstructorParameters<typeof code.RunnelError>;
  newSseParser: ConstructorParameters<typeof code.SseParser>;
  newTranscript: ConstructorParameters<typeof code.Transcript>;
  stream: Call<typeof code.stream>;
  attach: Call<typeof code.attach>;
  crc32: typeof code.crc32;
}

interface Declared {
  names: keyof typeof declared;
  GenerationStream: Public<declared.GenerationStream>;
  RunnelError: Public<declared.RunnelError>;
  SseParser: Public<declared.SseParser>;
  Transcript: Public<declared.Transcript>;
  newRunnelError: ConstructorParameters<typeof declared.RunnelError>;
  newSseParser: ConstructorParameters<typeof declared.SseParser>;
  newTranscript: ConstructorParameters<typeof declared.Transcript>;
  stream: Call<typeof declared.stream>;
  attach: Call<typeof declared.attach>;
  crc32: typeof declared.crc32;
}

export const asDeclared: Declared = value<Code>();
export const asCode: Code = value<Declared>();

export const untyped: never[] = [
  value<Untyped<code.GenerationStream>>(), value<Untyped<code.RunnelError>>(),
  value<Untyped<code.SseParser>>(), value<Untyped<code.Transcript>>(),
];
