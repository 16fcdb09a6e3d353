/**
 * Whether the service wants a token that this browser has not. Whoever signs in hands it over once; from then on it is
 * in a cookie that no script can read, and that goes along with streams and downloads too.
 */
import { useSyncExternalStore } from "react";
import { useAway } from "./presence";

const listeners = new Set<() => void>();
let out = false;
let sessions = 0; // begun so far

/** The service refused whatever it was asked for want of a valid token. */
export function ended(): void {
  tell(true);
}

export function begun(): void {
  sessions += 1;
  tell(false);
}

/** Another number after each sign-in: what was refused under an earlier one says nothing of the present one. */
export function present(): number {
  return sessions;
}

export function isOut(): boolean {
  return out;
}

export function useSignedOut(): boolean {
  return useSyncExternalStore(subscribe, isOut);
}

/** Whether there is no use in asking the service for anything. */
export function useCutOff(): boolean {
  const away = useAway();
  return useSignedOut() || away;
}

/** Call back whenever a session ends or begins; returns how to stop that. */
export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(now: boolean): void {
  if (now === out) return;
  out = now;
  for (const listener of listeners) listener();
}
