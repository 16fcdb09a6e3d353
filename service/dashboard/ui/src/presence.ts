/** Whether the service is there, and its database. While one is not, it is asked every two seconds until both are. */
import { useSyncExternalStore } from "react";

const EVERY_MS = 2000;
const listeners = new Set<() => void>();
let away = false;
let asking = false;

/** A request got no answer, or that there can be none at present. */
export function lost(): void {
  if (!asking) void askUntilItAnswers();
}

export function useAway(): boolean {
  return useSyncExternalStore(subscribe, isAway);
}

export function isAway(): boolean {
  return away;
}

/** Call back whenever the service goes or comes; returns how to stop that. */
export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

async function askUntilItAnswers(): Promise<void> {
  asking = true;
  while (!(await answers())) {
    tell(true);
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
  asking = false;
  tell(false);
}

async function answers(): Promise<boolean> {
  try {
    return (await fetch("/readyz", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

function tell(now: boolean): void {
  if (now === away) return;
  away = now;
  for (const listener of listeners) listener();
}
