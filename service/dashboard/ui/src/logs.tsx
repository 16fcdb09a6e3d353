/** The log of a job's workers, followed as it grows. */
import { useEffect, useRef, useState, type ReactNode } from "react";
import { open, Refused } from "./api";
import { Failure } from "./parts";
import { useCutOff } from "./session";
import { useVisible } from "./stream";

const TAIL = 500;
const KEPT = 5000;
const RETRY_MS = 3000;

export function LogsPart({ id, ended }: { id: string; ended: boolean }): ReactNode {
  const [worker, setWorker] = useState("");
  const [follow, setFollow] = useState(true);
  const { lines, workers, error } = useLog(id, worker, follow);
  return (
    <>
      <div className="filters">
        <select aria-label="Worker" value={worker} onChange={(event) => setWorker(event.target.value)}>
          <option value="">all workers</option>
          {workers.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <label className="check">
          <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.target.checked)} />
          Follow
        </label>
        <span className="note">the last {TAIL} lines, and what comes</span>
      </div>
      <Failure error={error} />
      {lines.length ? <Lines lines={lines} follow={follow} /> : !error && <p className="empty">{ended ? "No logs were kept." : "There are no lines yet."}</p>}
    </>
  );
}

/** Kept at its end while it is followed. */
function Lines({ lines, follow }: { lines: string[]; follow: boolean }): ReactNode {
  const box = useRef<HTMLPreElement>(null);
  useEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, follow]);
  return (
    <pre ref={box} className="log" tabIndex={0} role="region" aria-label="Log">
      {lines.join("\n")}
    </pre>
  );
}

interface Log {
  lines: string[];
  workers: string[];
  error: Error | null;
}

const EMPTY: Log = { lines: [], workers: [], error: null };

/** Read from the tail on, again wherever it broke off; what is shown stays until the new lines come. */
function useLog(id: string, worker: string, follow: boolean): Log {
  const [log, setLog] = useState<Log>(EMPTY);
  const visible = useVisible();
  const idle = useCutOff() || !visible;
  useEffect(() => {
    setLog((before) => ({ ...EMPTY, workers: before.workers }));
  }, [id, worker]);
  useEffect(() => {
    if (idle) return undefined;
    const stop = new AbortController();
    void readOn(id, worker, follow, setLog, stop.signal);
    return () => stop.abort();
  }, [id, worker, follow, idle]);
  return log;
}

type SetLog = (next: (before: Log) => Log) => void;

async function readOn(id: string, worker: string, follow: boolean, setLog: SetLog, signal: AbortSignal): Promise<void> {
  for (;;) {
    let begun = false;
    const add = (lines: string[]): void => {
      const afresh = !begun;
      begun = true;
      setLog((before) => longer(afresh ? { ...EMPTY, workers: before.workers } : before, lines));
    };
    try {
      await read(id, worker, follow, add, signal);
      return;
    } catch (error) {
      if (signal.aborted) return;
      setLog((before) => ({ ...before, error: error as Error }));
      if (!follow || (error instanceof Refused && error.status < 500)) return;
    }
    await new Promise((done) => setTimeout(done, RETRY_MS));
    if (signal.aborted) return;
  }
}

function longer(log: Log, lines: string[]): Log {
  const names = lines.flatMap((line) => /^\[(\w+)\]/.exec(line)?.[1] ?? []);
  const workers = names.length ? [...new Set([...log.workers, ...names])].sort() : log.workers;
  return { ...log, lines: [...log.lines, ...lines].slice(-KEPT), workers };
}

async function read(
  id: string,
  worker: string,
  follow: boolean,
  add: (lines: string[]) => void,
  signal: AbortSignal,
): Promise<void> {
  const query = new URLSearchParams({ tail: String(TAIL), follow: String(follow) });
  if (worker) query.set("rank", worker);
  const response = await open(`/v1/jobs/${id}/logs?${query}`, { signal });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let piece = await next(reader); !piece.done; piece = await next(reader)) {
    const whole = (rest + piece.value).split("\n");
    rest = whole.pop()!;
    if (whole.length) add(whole);
  }
}

async function next(reader: ReadableStreamDefaultReader<string>): Promise<ReadableStreamReadResult<string>> {
  try {
    return await reader.read();
  } catch {
    throw new Error("The log broke off; it is read again in a moment.");
  }
}
