/** Events and numbers as a person reads them; the words are those of the command line (`api_schemas/wording.py`). */
import type { Change, Event, Phase, Progress, Scores } from "./contract";

const LOST = "rank_lost";

const MEANING: Record<string, string> = {
  decay_out_of_range: "a decay would leave its range",
  rule_undefined: "no rule covers this optimizer",
  rectification_lost: "RAdam would never rectify, and run as plain SGD; lower kappa, or choose adam",
  step_coarse: "the step is above a quarter of the stability bound",
  past_noise_scale: "the batch exceeds the gradient's noise scale, so more workers save few steps",
  v_few_samples: "the second moment averages over very few steps",
  momentum_lost: "one step spans the momentum's memory, little of it is left",
  ema_coarse: "one step spans the EMA's memory, so it hugs the weights",
  bn_coarse: "one step spans BatchNorm's memory, so its statistics are those of the last batches",
};

const SHORT: Record<string, string> = { ema_momentum: "rho" };

/** A code of the scaling rules, and what it means. */
export function explain(code: string): string {
  return MEANING[code] ? `${code}: ${MEANING[code]}` : code;
}

/** A hyperparameter as it is called in tables. */
export function named(name: string): string {
  return SHORT[name] ?? name.replaceAll("_", " ");
}

/** The event as a sentence; null for those that another one tells. */
export function describe(event: Event): string | null {
  switch (event.type) {
    case "submitted":
      return "submitted";
    case "phase":
      return isTold(event.phase, event.code) ? null : `${event.phase}: ${event.message}`;
    case "resize_requested":
      if (event.workers === null) return "what was asked for was taken back";
      return `asked for ${workers(event.workers)}${event.at_samples === null ? "" : ` from sample ${count(event.at_samples)} on`}`;
    case "updated":
      return Object.entries(event.changes).map(([name, [before, after]]) => `${name} ${setting(before)} → ${setting(after)}`).join("; ");
    case "joining":
      return `${workers(event.workers)} warming up while the others train`;
    case "started":
      return `training on ${workers(event.workers)}: batch ${count(event.batch)}, kappa ${number(event.kappa)}`;
    case "resizing":
      return `${event.workers[0]} → ${workers(event.workers[1])} announced${event.cause === LOST ? "" : `: ${event.reason}`}`;
    case "resized":
      return resized(event);
    case "rank_lost":
      return event.reason;
    case "evaluated":
      return `evaluation after ${count(event.samples)} samples: ${scores(event.target, event.ema).join(", ")}`;
    case "checkpoint_saved":
      return `checkpoint ${event.name} is durable`;
    case "checkpoint_failed":
      return `a checkpoint could not be written: ${event.message}`;
    case "rollback":
      return `back to the checkpoint at sample ${count(event.to_samples)}${event.samples_lost == null ? "" : `; ${counted(event.samples_lost, "sample")} after it are trained again`}`;
    case "exported":
      return `exported: ${Object.keys(event.artifacts).sort().join(", ")}`;
    case "warning":
      return `warning ${event.code}: ${event.message}`;
    default:
      return null;
  }
}

/** What a PATCH may change: limits, labels, or a number. */
function setting(value: unknown): string {
  if (Array.isArray(value)) return value.map(number).join(" to ");
  if (typeof value !== "object" || value === null) return number(value);
  return Object.entries(value).map(([name, text]) => `${name}=${text}`).join(", ") || "none";
}

/** Phases that the events which lead there tell already. */
function isTold(phase: Phase, code: string): boolean {
  return phase === "running" || phase === "resizing" || code === LOST;
}

function resized(event: Change & { pause_s: number; steps_lost: number }): string {
  const moves = [`${event.workers[0]} → ${workers(event.workers[1])}`];
  moves.push(`kappa ${number(event.kappa[0])} → ${number(event.kappa[1])}`);
  for (const name of ["lr", "ema_momentum"]) {
    if (name in event.before && name in event.after) {
      moves.push(`${named(name)} ${number(event.before[name])} → ${number(event.after[name])}`);
    }
  }
  return `${moves.join(", ")}; paused ${seconds(event.pause_s)}, ${counted(event.steps_lost, "step")} lost`;
}

/** Scores of the weights, and in brackets those of their average. */
export function scores(target: Scores, ema: Scores | null): string[] {
  return Object.entries(target).map(([name, score]) => {
    const averaged = ema && name in ema ? ` (EMA ${score_(ema[name])})` : "";
    return `${name} ${score_(score)}${averaged}`;
  });
}

function score_(score: number | null | undefined): string {
  return score === null ? "not finite" : number(score);
}

/** How much of the training is done, from 0 to 1. */
export function share(progress: Progress): number {
  return progress.total_samples ? Math.min(1, progress.samples / progress.total_samples) : 0;
}

export function percent(part: number): string {
  return `${Math.floor(100 * part)} %`;
}

/** Fractions to four digits, lists by element, nothing as a dash. */
export function number(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.map(number).join(", ");
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  return String(Number(value.toPrecision(4)));
}

/** Whole numbers with their thousands apart. */
export function count(value: number): string {
  return value.toLocaleString("en").replaceAll(",", "\u202f");
}

/** For an axis: 1500000 as `1.5M`, and as many digits as tell its ticks apart. */
export function ticks(values: (number | null)[]): string[] {
  const labels = (digits: number): string[] => values.map((value) => (value === null ? "" : compact(value, digits)));
  for (let digits = 4; digits < 15; digits++) {
    const told = labels(digits).filter((label) => label !== "");
    if (new Set(told).size === told.length) return labels(digits);
  }
  return labels(15);
}

function compact(value: number, digits: number): string {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]] as const) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(digits))}${unit}`;
  }
  return String(Number(value.toPrecision(digits)));
}

export function bytes(value: number): string {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]] as const) {
    if (value >= size) return `${(value / size).toFixed(1)} ${unit}`;
  }
  return `${value} B`;
}

export function workers(amount: number): string {
  return counted(amount, "worker");
}

export function counted(amount: number, noun: string): string {
  return `${count(amount)} ${noun}${amount === 1 ? "" : "s"}`;
}

export function seconds(value: number): string {
  return value < 10 ? `${value.toFixed(2)} s` : duration(value);
}

/** `40 s`, `7 min 47 s`, `2 h 5 min`. */
export function duration(value: number): string {
  const whole = Math.round(value);
  const minutes = Math.floor(whole / 60);
  if (minutes === 0) return `${whole} s`;
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** The largest unit that fits: `40s`, `7m`, `2h`, `3d`. */
export function age(since: string, now: number): string {
  const passed = Math.max(0, Math.floor((now - Date.parse(since)) / 1000));
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["m", 60]] as const) {
    if (passed >= length) return `${Math.floor(passed / length)}${unit}`;
  }
  return `${passed}s`;
}

/** Time of day; with the date where it is not today's. */
export function clock(at: string): string {
  const then = new Date(at);
  const time = then.toLocaleTimeString("en-GB");
  const today = then.toDateString() === new Date().toDateString();
  return today ? time : `${then.toLocaleDateString("en-CA")} ${time}`;
}

/** The same moment exactly, as the clock here shows it: `2026-11-30T13:06:22+01:00`. */
export function stamp(at: string): string {
  const then = new Date(at);
  const ahead = -then.getTimezoneOffset();
  const two = (value: number): string => String(Math.floor(value)).padStart(2, "0");
  const zone = `${ahead < 0 ? "-" : "+"}${two(Math.abs(ahead) / 60)}:${two(Math.abs(ahead) % 60)}`;
  return `${then.toLocaleDateString("en-CA")}T${then.toLocaleTimeString("en-GB")}${zone}`;
}
