/** One job: how it stands, what can be done with it, and its history in parts. */
import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Actions } from "./actions";
import { get, pace, Refused } from "./api";
import { fallsShort, hasEnded, sizeOf, type JobView } from "./contract";
import { CurvesPart } from "./curves";
import { EventsPart, useEvents, type Heard } from "./events";
import { FilesPart } from "./files";
import { LogsPart } from "./logs";
import { Missing } from "./missing";
import { Noise } from "./noise";
import { Bar, Fact, Failure, PhaseBadge, Time, useTitle } from "./parts";
import { ResizesPart } from "./resizes";
import type { State } from "./stream";
import { count, duration, named, number, scores, share } from "./wording";
import { toYaml } from "./yaml";

const SOONEST_MS = 2000;
const LATEST_MS = 15_000;

export function JobScreen({ id, part }: { id: string; part: string }): ReactNode {
  const { heard, state } = useEvents(id);
  const job = useJob(id, state);
  useTitle(job.data?.name ?? id);
  return (
    <>
      {isMissing(job.error) ? <Missing address={`${id}/${part}`} parts={Object.keys(PARTS)} /> : <Failure error={job.error} />}
      {job.data && (
        <>
          <Head job={job.data} />
          <Trouble job={job.data} />
          <Facts job={job.data} heard={heard} />
          <Parts id={id} part={part} />
          <Part job={job.data} part={part} heard={heard} />
        </>
      )}
    </>
  );
}

/** No job has that id, or it is none: 422. */
function isMissing(error: Error | null): boolean {
  return error instanceof Refused && (error.status === 404 || error.status === 422);
}

/**
 * As the stream of its events tells. Where there is none it is asked for: by each event that is heard of, and while it
 * trains, since progress makes no event, once in a while.
 */
function useJob(id: string, state: State): { data: JobView | undefined; error: Error | null } {
  return useQuery({
    queryKey: ["job", id],
    queryFn: ({ signal }) => get<JobView>(`/v1/jobs/${id}`, signal),
    enabled: state === "broken" || state === "unwanted",
    refetchInterval: (query) => pace(dueIn(query.state.data))(query),
  });
}

function dueIn(job: JobView | undefined): number | false {
  if (!job) return LATEST_MS;
  if (hasEnded(job.status.phase)) return false;
  if (job.workers === 0) return LATEST_MS;
  const unchanged = Date.now() - Date.parse(job.updated_at);
  return Math.min(Math.max(unchanged / 4, SOONEST_MS), LATEST_MS);
}

function Head({ job }: { job: JobView }): ReactNode {
  return (
    <div className="head">
      <div>
        <h1>
          {job.name} <PhaseBadge phase={job.status.phase} />
        </h1>
        <p className={fallsShort(job.status) ? "warning" : undefined}>{job.status.message}</p>
        <p className="note">
          <code>{job.id}</code>, {job.spec.recipe.name} with {job.spec.optimizer.name}
          {job.spec.engine !== "in_place" && `, ${job.spec.engine}`}, submitted <Time at={job.created_at} />
        </p>
      </div>
      <Actions job={job} />
    </div>
  );
}

function Trouble({ job: { status } }: { job: JobView }): ReactNode {
  if (!status.traceback && status.log_tail.length === 0) return null;
  return (
    <details className="trouble" open>
      <summary>Why it failed: {status.code}</summary>
      {status.traceback && <pre tabIndex={0} role="region" aria-label="Traceback">{status.traceback}</pre>}
      {status.log_tail.length > 0 && <pre tabIndex={0} role="region" aria-label="The last log lines">{status.log_tail.join("\n")}</pre>}
    </details>
  );
}

function Facts({ job, heard }: { job: JobView; heard: Heard }): ReactNode {
  const { progress, values } = job;
  return (
    <dl className="facts">
      <Fact name="Progress">
        <Bar part={share(progress)} label="Progress" />
        <small>
          {count(progress.samples)}{progress.total_samples !== null && ` of ${count(progress.total_samples)}`} samples
        </small>
      </Fact>
      <Fact name="Time left">{progress.eta_s === null ? "–" : duration(progress.eta_s)}<small>epoch {number(progress.epoch)}</small></Fact>
      <Workers job={job} heard={heard} />
      <Fact name="Kappa">{number(job.kappa)}<small>batch {job.batch ?? "–"}, base {job.spec.batch.base}</small></Fact>
      <Fact name="Learning rate">{number(values.lr)}</Fact>
      {"ema_momentum" in values && <Fact name="Rho">{number(values.ema_momentum)}<small>EMA momentum</small></Fact>}
      {job.spec.scaling.second_moment !== "assume_noise" && <Noise job={job} heard={heard} />}
      {job.evaluation && (
        <Fact name="Evaluation">
          {scores(job.evaluation.target, job.evaluation.ema).map((score) => (
            <span key={score} className="scores">{score}</span>
          ))}
          <small>at {count(job.evaluation.samples)}</small>
        </Fact>
      )}
      {job.pending_resizes.map(({ workers, at_samples }) => (
        <Fact key={at_samples} name="Planned">{workers} workers<small>from sample {count(at_samples)}</small></Fact>
      ))}
    </dl>
  );
}

function Workers({ job, heard }: { job: JobView; heard: Heard }): ReactNode {
  const [low, high] = job.spec.elasticity.workers;
  const limits = low === high ? String(low) : `${low} to ${high}`;
  if (hasEnded(job.status.phase)) {
    const last = heard.events.flatMap(sizeOf).at(-1)?.workers;
    return <Fact name="Workers">–<small>{last === undefined ? limits : `ended with ${last}`}</small></Fact>;
  }
  const target = job.target_workers === null ? "" : `, asked for ${job.target_workers}`;
  return <Fact name="Workers">{job.workers}<small>{limits}{target}</small></Fact>;
}

const PARTS: Record<string, string> = {
  curves: "Curves",
  resizes: "Resizes",
  events: "Events",
  logs: "Logs",
  files: "Files",
  spec: "Spec",
};

function Parts({ id, part }: { id: string; part: string }): ReactNode {
  return (
    <nav aria-label="Parts of the job" className="parts">
      {Object.entries(PARTS).map(([name, label]) => (
        <a key={name} href={`#/jobs/${id}/${name}`} aria-current={name === part ? "page" : undefined}>
          {label}
        </a>
      ))}
    </nav>
  );
}

function Part({ job, part, heard }: { job: JobView; part: string; heard: Heard }): ReactNode {
  const resizes = heard.events.filter(({ type }) => type === "resized").length;
  if (part === "resizes") return <ResizesPart id={job.id} happened={resizes} />;
  if (part === "events") return <EventsPart id={job.id} heard={heard} />;
  if (part === "logs") return <LogsPart id={job.id} ended={hasEnded(job.status.phase)} />;
  if (part === "files") return <FilesPart id={job.id} ended={hasEnded(job.status.phase)} />;
  if (part === "spec") return <SpecPart job={job} />;
  return <CurvesPart job={job} heard={heard} />;
}

function SpecPart({ job }: { job: JobView }): ReactNode {
  return (
    <>
      <p className="note">What was asked for, and every default; below it the values in force now.</p>
      <pre className="log" tabIndex={0} role="region" aria-label="Spec">{toYaml(job.spec)}</pre>
      <dl className="facts">
        {Object.entries(job.values).map(([name, value]) => (
          <Fact key={name} name={named(name)}>{number(value)}</Fact>
        ))}
      </dl>
    </>
  );
}
