/** Small things that several screens show. */
import { useEffect, useState, type ReactNode } from "react";
import { Away, Refused } from "./api";
import type { Phase } from "./contract";
import { clock, percent, stamp } from "./wording";

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · emascale`;
  }, [title]);
}

/** Now, in milliseconds, moved on every so many of them. */
export function useNow(every = 10_000): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}

/** The value once it has stood for so many milliseconds. */
export function useSettled<T>(value: T, wait: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), wait);
    return () => clearTimeout(timer);
  }, [value, wait]);
  return settled;
}

export function PhaseBadge({ phase }: { phase: Phase }): ReactNode {
  return <span className={`phase ${phase}`}>{phase}</span>;
}

/** A time of day here, with the date where it is not today's; all of it, and its zone, for whoever points there. */
export function Time({ at }: { at: string }): ReactNode {
  return (
    <time dateTime={at} title={stamp(at)}>
      {clock(at)}
    </time>
  );
}

export function Bar({ part, label }: { part: number; label: string }): ReactNode {
  return (
    <span className="bar">
      <progress value={part} max={1} aria-label={label} />
      <span>{percent(part)}</span>
    </span>
  );
}

/** One of the tiles that say how a job stands, in a list of them. */
export function Fact({ name, children }: { name: string; children: ReactNode }): ReactNode {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Move({ from, to }: { from: string; to: string }): ReactNode {
  return from === to ? <>{to}</> : <span className="move">{`${from} → ${to}`}</span>;
}

/** What went wrong, where it went wrong; that nobody answers, or wants a token first, is told above all. */
export function Failure({ error }: { error: Error | null }): ReactNode {
  if (!error || error instanceof Away || (error instanceof Refused && error.status === 401)) return null;
  return (
    <p role="alert" className="failure">
      {error.message}
    </p>
  );
}

/** A table that scrolls by itself where it is too wide, by keyboard too. */
export function Table({ label, children }: { label: string; children: ReactNode }): ReactNode {
  return (
    <div className="wide" role="region" aria-label={label} tabIndex={0}>
      <table>{children}</table>
    </div>
  );
}
