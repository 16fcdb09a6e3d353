/** Dark or light: as the system says, until somebody chooses. */
import { useSyncExternalStore } from "react";

export type Theme = "light" | "dark";

const KEPT = "theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

/** Once, before anything is drawn. */
export function begin(): void {
  const chosen = kept();
  if (chosen) document.documentElement.dataset.theme = chosen;
  system.addEventListener("change", tell);
}

export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, theme);
}

/** The other one; what the system says anyway is not kept as a choice. */
export function toggle(): void {
  const chosen: Theme = theme() === "dark" ? "light" : "dark";
  if (chosen === bySystem()) {
    localStorage.removeItem(KEPT);
    delete document.documentElement.dataset.theme;
  } else {
    localStorage.setItem(KEPT, chosen);
    document.documentElement.dataset.theme = chosen;
  }
  tell();
}

/** A colour of the stylesheet as it is now, for what is drawn on a canvas. */
export function colour(name: string): string {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function theme(): Theme {
  return kept() ?? bySystem();
}

function bySystem(): Theme {
  return system.matches ? "dark" : "light";
}

function kept(): Theme | null {
  const value = localStorage.getItem(KEPT);
  return value === "dark" || value === "light" ? value : null;
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(): void {
  for (const listener of listeners) listener();
}
