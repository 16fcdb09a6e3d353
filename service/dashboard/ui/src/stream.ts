/**
 * Server-sent events. A stream that breaks off is taken up by the browser with Last-Event-ID. It is closed while the
 * page is hidden, the service is away or a token is missing, since a browser has six connections to a service for all
 * pages together.
 */
import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import { lost } from "./presence";
import { useCutOff } from "./session";

export interface Message {
  kind: string; // "message", or the name that the service gave to its kind
  id: string;
  data: string;
}

/** opening: no answer yet; live: messages come; broken: whoever needs news has to ask for them; unwanted: no stream. */
export type State = "opening" | "live" | "broken" | "unwanted";

const KINDS = ["message", "view"];

const TOGETHER_MS = 50;
const PATIENCE_MS = 3000;

/**
 * Take the messages of a stream, in batches of what comes together; address null: none is wanted.
 * `heard` is asked whenever the stream is opened anew, for the end of an address that begins where the last one ended.
 */
export function useStream(
  address: string | null,
  take: (batch: Message[]) => void,
  heard: () => string = () => "",
): State {
  const [state, setState] = useState<State>("opening");
  const now = useRef({ take, heard });
  now.current = { take, heard };
  const visible = useVisible();
  const cutOff = useCutOff();
  const wanted = visible && !cutOff ? address : null;
  useEffect(() => {
    if (wanted === null) return undefined;
    return listen(wanted + now.current.heard(), (batch) => now.current.take(batch), setState);
  }, [wanted]);
  return address === null ? "unwanted" : state;
}

function listen(address: string, take: (batch: Message[]) => void, become: (state: State) => void): () => void {
  const source = new EventSource(address);
  let batch: Message[] = [];
  let pending: number | undefined;
  const late = setTimeout(() => become("broken"), PATIENCE_MS);
  const flush = (): void => {
    pending = undefined;
    const whole = batch;
    batch = [];
    take(whole);
  };
  become("opening");
  source.onopen = () => {
    clearTimeout(late);
    become("live");
  };
  const add = ({ type, lastEventId, data }: MessageEvent<string>): void => {
    batch.push({ kind: type, id: lastEventId, data });
    pending ??= window.setTimeout(flush, TOGETHER_MS);
  };
  for (const kind of KINDS) source.addEventListener(kind, add);
  source.onerror = () => {
    clearTimeout(pending);
    if (batch.length > 0) flush();
    become("broken");
    lost(); // if it is the service, it is asked until it answers, and then the stream is opened anew
  };
  return () => {
    clearTimeout(late);
    clearTimeout(pending);
    source.close();
  };
}

/** Whether somebody can see the page. */
export function useVisible(): boolean {
  return useSyncExternalStore(onVisibility, () => document.visibilityState === "visible");
}

function onVisibility(listener: () => void): () => void {
  document.addEventListener("visibilitychange", listener);
  return () => document.removeEventListener("visibilitychange", listener);
}
