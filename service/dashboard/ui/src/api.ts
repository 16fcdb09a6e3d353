/** Requests to the service. Repeated GETs are conditional by themselves: the browser keeps the ETag, and reads a 304. */
import type { FieldError } from "./contract";
import { lost } from "./presence";
import { ended, present } from "./session";

const UNAVAILABLE = 503;

interface Problem {
  code: string;
  detail: string;
  errors?: FieldError[];
}

/** The service refused, and said why. */
export class Refused extends Error {
  readonly status: number;
  readonly code: string;
  readonly errors: FieldError[];

  constructor(status: number, problem: Problem) {
    super(problem.detail);
    this.status = status;
    this.code = problem.code;
    this.errors = problem.errors ?? [];
  }

  /** The same in other words, where there are some for a field. */
  reworded(words: FieldError[]): Refused {
    const errors = this.errors.map((error) => words.find(({ pointer }) => pointer === error.pointer) ?? error);
    return new Refused(this.status, { code: this.code, detail: this.message, errors });
  }
}

/** Nobody answered; `presence` looks after that. */
export class Away extends Error {
  constructor() {
    super("The service does not answer.");
  }
}

export function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return ask<T>(path, { signal: signal ?? null });
}

export function post<T>(path: string, body: unknown = {}, signal?: AbortSignal): Promise<T> {
  return hand<T>(path, { text: JSON.stringify(body), kind: "application/json" }, {}, signal);
}

/** Data as it was written. */
export interface Document {
  text: string;
  kind: "application/json" | "application/yaml";
}

/** POST it as it is. */
export function hand<T>(path: string, body: Document, headers: Record<string, string>, signal?: AbortSignal): Promise<T> {
  return ask<T>(path, {
    method: "POST",
    body: body.text,
    headers: { ...headers, "Content-Type": body.kind },
    signal: signal ?? null,
  });
}

export function patch<T>(path: string, body: unknown): Promise<T> {
  return ask<T>(path, { method: "PATCH", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
}

export function remove(path: string): Promise<void> {
  return ask<void>(path, { method: "DELETE" });
}

/** The answer itself, once it is a success. Throws Refused or Away. */
export async function open(path: string, init: RequestInit): Promise<Response> {
  const session = present();
  const response = await reach(path, init);
  if (response.ok) return response;
  if (response.status === 401) {
    if (session !== present()) return open(path, init); // somebody signed in while it was under way
    ended();
  }
  if (response.status === UNAVAILABLE) lost();
  if (!response.headers.get("content-type")?.includes("json")) throw gone();
  throw new Refused(response.status, (await response.json()) as Problem);
}

async function ask<T>(path: string, init: RequestInit): Promise<T> {
  const response = await open(path, init);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

async function reach(path: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(path, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw gone();
  }
}

/** How long to wait for the next try: what was refused once, and not for a while alone, is not asked for again. */
export function pace(every: number | false): (query: { state: { error: Error | null } }) => number | false {
  return ({ state: { error } }) => (error instanceof Refused && error.status < 500 ? false : every);
}

function gone(): Away {
  lost();
  return new Away();
}
