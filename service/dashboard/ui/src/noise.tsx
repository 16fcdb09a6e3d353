/** The gradient's noise scale: what it was found to be, and since when it is not measured, where it is not. */
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { get } from "./api";
import { hasEnded, sizeOf, type Curves, type Event, type JobView, type Page, type ToldSize } from "./contract";
import type { Heard } from "./events";
import { Fact } from "./parts";
import { count, number, share } from "./wording";

const BACK = 100; // changes of size that are looked through

export function Noise({ job, heard }: { job: JobView; heard: Heard }): ReactNode {
  const measured = useMeasured(job);
  const since = useAlone(job, heard);
  if (!measured) return <Fact name="Noise scale">–<small>not measured{yet(job, since !== null)}</small></Fact>;
  return (
    <Fact name="Noise scale">
      {job.noise_scale === null ? "∞" : number(job.noise_scale)}
      <small>{job.noise_scale === null ? "the gradient is noise alone" : "samples"}</small>
      {since !== null && <small>not measured since sample {count(since)}: one micro-batch a step</small>}
    </Fact>
  );
}

function yet(job: JobView, alone: boolean): string {
  if (hasEnded(job.status.phase)) return "";
  return alone ? ": one micro-batch a step" : " yet";
}

/**
 * Whether it was ever measured. Where the gradient is noise alone the scale is infinite, which the view tells as if
 * there were none; the noise's share of the gradient is told beside it, and is finite always.
 */
function useMeasured(job: JobView): boolean {
  const { data } = useQuery({
    queryKey: ["noise", job.id, Math.ceil(50 * share(job.progress))],
    queryFn: ({ signal }) => get<Curves>(`/v1/jobs/${job.id}/metrics?name=noise_fraction&points=2`, signal),
    enabled: job.noise_scale === null && job.progress.samples > 0,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
  });
  return job.noise_scale !== null || (data?.series.noise_fraction ?? []).length > 0;
}

/** Since which sample a step is one micro-batch, in which there is no spread to measure; null: it is more. */
function useAlone({ id, workers, progress, spec }: JobView, { events }: Heard): number | null {
  const { data } = useQuery({
    queryKey: ["sizes", id, events.flatMap(sizeOf).length],
    queryFn: ({ signal }) =>
      get<Page<Event>>(`/v1/jobs/${id}/events?type=started&type=resized&newest_first=true&limit=${BACK}`, signal),
    enabled: workers < 2 && progress.samples > 0,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
  });
  if (workers > 1 || !data) return null;
  const newest = data.items.flatMap(sizeOf);
  const before = newest.findIndex((size) => !isAlone(size, spec.batch.per_worker));
  const run = before < 0 ? newest : newest.slice(0, before);
  return run.length === 0 ? null : Math.min(...run.map(({ samples }) => samples));
}

function isAlone({ workers, batch }: ToldSize, most: number): boolean {
  return workers === 1 && batch <= most;
}
