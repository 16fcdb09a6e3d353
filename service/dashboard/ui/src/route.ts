/** Where in the dashboard one is: the part of the address behind `#`, so that the service has one page to serve. */
import { useSyncExternalStore } from "react";

export interface Place {
  path: string[];
  query: URLSearchParams;
}

export function usePlace(): Place {
  const hash = useSyncExternalStore(subscribe, () => location.hash);
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean), query: new URLSearchParams(query) };
}

/** The address of a place; settings without a value are left out. */
export function to(path: string, settings: Record<string, string | string[]> = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(settings)) {
    for (const each of [value].flat()) if (each) query.append(name, each);
  }
  return query.size ? `#${path}?${query}` : `#${path}`;
}

/** Go there; `instead` of where one is, the way back does not lead here. */
export function go(address: string, instead = false): void {
  if (instead) location.replace(address);
  else location.assign(address);
}

function subscribe(listener: () => void): () => void {
  addEventListener("hashchange", listener);
  return () => removeEventListener("hashchange", listener);
}
