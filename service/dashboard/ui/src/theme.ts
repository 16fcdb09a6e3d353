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
  if (chosen === bySystem()) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  keep(chosen === bySystem() ? null : chosen);
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
  return known(document.documentElement.dataset.theme) ?? bySystem();
}

function bySystem(): Theme {
  return system.matches ? "dark" : "light";
}

function known(value: string | null | undefined): Theme | null {
  return value === "dark" || value === "light" ? value : null;
}

/** A browser that is to keep nothing throws: the choice then holds as long as the page. */
function kept(): Theme | null {
  try {
    return known(localStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

function keep(chosen: Theme | null): void {
  try {
    if (chosen === null) localStorage.removeItem(KEPT);
    else localStorage.setItem(KEPT, chosen);
  } catch {
    return;
  }
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(): void {
  for (const listener of listeners) listener();
}
