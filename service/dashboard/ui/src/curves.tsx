/** The curves of a job on one x axis in samples, with a mark at each change of size. */
import { keepPreviousData, useQuery, useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useState, type ReactNode } from "react";
import { get } from "./api";
import { Chart, type Line, type Mark, type Span } from "./chart";
import { hasEnded, type Curves, type Event, type JobView, type Page, type Point } from "./contract";
import type { Heard } from "./events";
import { Failure } from "./parts";

const POINTS = 500; // of a curve: more than a chart has pixels for
const MOST = 4 * POINTS; // a curve that grew longer is asked for anew, thinned out
const EVALUATION = "evaluation/";

const CHARTS: { title: string; name: string; label: string; stepped?: boolean; log?: boolean }[] = [
  { title: "World size", name: "workers", label: "workers", stepped: true },
  { title: "Kappa", name: "kappa", label: "kappa", stepped: true },
  { title: "Learning rate", name: "lr", label: "lr" },
  { title: "EMA momentum", name: "ema_momentum", label: "rho" },
  { title: "Throughput", name: "samples_per_s", label: "samples/s" },
  { title: "Gradient noise scale", name: "noise_scale", label: "samples", log: true },
];

export function CurvesPart({ job, heard }: { job: JobView; heard: Heard }): ReactNode {
  const [window_, setWindow] = useState<Span | null>(null);
  const curves = useCurves(job);
  const near = useNear(job.id, window_);
  const marks = useMarks(job.id, heard);
  const shown = near ?? curves.data;
  const charts = useMemo(() => (shown ? chartsOf(shown) : []), [shown]);
  if (curves.error && !shown) return <Failure error={curves.error} />;
  if (charts.length === 0) return <p className="empty">{nothing(job, curves.data !== undefined)}</p>;
  const span: Span = window_ ?? [0, lastOf(curves.data) || 1];
  return (
    <>
      <p className="note">
        Over samples seen; dashed lines are changes of size, red ones ways back to a checkpoint. Drag over a chart to look closer.{" "}
        {window_ && <button onClick={() => setWindow(null)}>Show all</button>}
      </p>
      <div className="charts">
        {charts.map(({ title, lines, log }) => (
          <Chart key={title} title={title} lines={lines} log={log} marks={marks} span={span} onZoom={setWindow} />
        ))}
      </div>
    </>
  );
}

function nothing(job: JobView, asked: boolean): string {
  if (!asked) return "The curves are on their way.";
  if (hasEnded(job.status.phase)) return "There are no curves: it ended before its first steps.";
  return "There are no curves yet: they begin with the first steps.";
}

/** The curves, to which each progress of the job adds what is new. */
function useCurves(job: JobView): { data: Curves | undefined; error: Error | null } {
  const client = useQueryClient();
  const query = useQuery({
    queryKey: keyOf(job.id),
    queryFn: ({ signal }) => longer(client, job.id, signal),
    staleTime: Infinity,
  });
  const { samples } = job.progress;
  const { refetch } = query;
  useEffect(() => {
    if (samples > 0) void refetch({ cancelRefetch: false });
  }, [samples, job.status.phase, refetch]);
  return query;
}

/** What an event changes in the curves: scores are added, and what a rollback voided is forgotten. */
export function heard(client: QueryClient, id: string, event: Event): void {
  if (event.type === "rollback") void client.resetQueries({ queryKey: keyOf(id) });
  if (event.type !== "evaluated") return;
  const added: Curves = { series: {} };
  for (const [weights, scores] of Object.entries({ target: event.target, ema: event.ema ?? {} })) {
    for (const [name, score] of Object.entries(scores)) {
      added.series[`${EVALUATION}${weights}/${name}`] = [[event.samples, score]];
    }
  }
  client.setQueryData<Curves>(keyOf(id), (known) => known && append(known, added));
}

/** A closer look at a part of the curves, in as many points as the whole has. */
function useNear(id: string, span: Span | null): Curves | undefined {
  const { data } = useQuery({
    queryKey: ["near", id, span],
    queryFn: ({ signal }) =>
      get<Curves>(`/v1/jobs/${id}/metrics?points=${POINTS}&from=${span?.[0]}&to=${span?.[1]}`, signal),
    enabled: span !== null,
    placeholderData: keepPreviousData,
  });
  return span === null ? undefined : data;
}

function keyOf(id: string): string[] {
  return ["curves", id];
}

async function longer(client: QueryClient, id: string, signal: AbortSignal): Promise<Curves> {
  const known = (): Curves => client.getQueryData<Curves>(keyOf(id)) ?? { series: {} };
  const full = Object.values(known().series).some((points) => points.length >= MOST);
  const from = full ? 0 : reached(known()) + 1;
  const fresh = await get<Curves>(`/v1/jobs/${id}/metrics?points=${POINTS}&from=${from}`, signal);
  return from ? append(known(), fresh) : fresh;
}

function append(known: Curves, fresh: Curves): Curves {
  const series = { ...known.series };
  for (const [name, points] of Object.entries(fresh.series)) {
    const before = series[name] ?? [];
    const last = before.at(-1)?.[0] ?? -1;
    series[name] = [...before, ...points.filter(([x]) => x > last)];
  }
  return { series };
}

/** Up to which sample the trainer's own curves are known. */
function reached(curves: Curves): number {
  return Math.max(-1, ...Object.entries(curves.series).map(([name, points]) => (name.startsWith(EVALUATION) ? -1 : last(points))));
}

function lastOf(curves: Curves | undefined): number {
  return Math.max(0, ...Object.values(curves?.series ?? {}).map(last));
}

function last(points: Point[]): number {
  return points.at(-1)?.[0] ?? -1;
}

/** Those that were heard of, and where that is not all there ever was, all before them. */
function useMarks(id: string, { events, older }: Heard): Mark[] {
  const { data } = useQuery({
    queryKey: ["marks", id],
    queryFn: ({ signal }) => changes(id, signal),
    enabled: older !== null,
    staleTime: Infinity,
  });
  return useMemo(() => {
    const marks = [...(data ?? []), ...events].flatMap(markOf);
    return [...new Map(marks.map((mark) => [`${mark.samples} ${mark.bad}`, mark])).values()];
  }, [data, events]);
}

async function changes(id: string, signal: AbortSignal): Promise<Event[]> {
  const found: Event[] = [];
  for (let after: string | null = "0"; after !== null; ) {
    const address = `/v1/jobs/${id}/events?type=resized&type=rollback&limit=1000&after=${after}`;
    const page: Page<Event> = await get(address, signal);
    found.push(...page.items);
    after = page.next;
  }
  return found;
}

function markOf(event: Event): Mark[] {
  if (event.type === "resized") return [{ samples: event.samples, bad: event.cause === "rank_lost" }];
  return event.type === "rollback" ? [{ samples: event.to_samples, bad: true }] : [];
}

interface Drawn {
  title: string;
  log?: boolean; // at first: what spans decades
  lines: Line[];
}

function chartsOf(curves: Curves): Drawn[] {
  const one = (title: string, name: string, label: string, stepped = false): Drawn[] => {
    const points = curves.series[name];
    return points ? [{ title, lines: [{ label, points, colour: "first", stepped }] }] : [];
  };
  const others = CHARTS.flatMap(({ title, name, label, stepped, log }) => one(title, name, label, stepped).map((drawn) => ({ ...drawn, log })));
  return [...one("Loss", "loss", "training"), ...evaluations(curves), ...others];
}

const WEIGHTS = [
  { name: "target", label: "target", colour: "first" },
  { name: "ema", label: "EMA", colour: "second" },
];

/** A chart for each score: that of the target weights beside that of their EMA. */
function evaluations(curves: Curves): Drawn[] {
  const names = Object.keys(curves.series).filter((name) => name.startsWith(EVALUATION));
  const scores = [...new Set(names.map((name) => name.split("/").slice(2).join("/")))];
  return scores.map((score) => ({
    title: `Evaluation: ${score}`,
    lines: WEIGHTS.flatMap(({ name, label, colour }) => {
      const points = curves.series[`${EVALUATION}${name}/${score}`];
      return points ? [{ label, points, colour, dotted: true }] : [];
    }),
  }));
}
