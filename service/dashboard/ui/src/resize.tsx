/** Asks for another number of workers, and shows before what that changes. */
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useId, useState, type ReactNode } from "react";
import { post, Refused } from "./api";
import { ChangeTable } from "./change";
import type { Change, JobView, ResizeRequest } from "./contract";
import { Dialog, useChanged, type Asked } from "./dialog";
import { Failure, useSettled } from "./parts";
import { count, workers as workersOf } from "./wording";

const FREE: ResizeRequest = { workers: null, at_samples: null };

export function ResizeDialog({ job, onClose, onLimits }: Asked & { onLimits: () => void }): ReactNode {
  const [low, high] = job.spec.elasticity.workers;
  const [workers, setWorkers] = useState(String(job.target_workers ?? (job.workers || low)));
  const [sample, setSample] = useState("");
  const [free, setFree] = useState(false); // whether a size that was asked for is taken back
  const amiss = free ? {} : { workers: amissOf(workers, `Say how many: ${low} to ${high}.`), sample: amissOf(sample, "") };
  const request: ResizeRequest = free ? FREE : { workers: Number(workers), at_samples: sample.trim() ? Number(sample) : null };
  const outside = !free && !amiss.workers && (request.workers! < low || request.workers! > high);
  const asked = amiss.workers || amiss.sample || outside ? null : JSON.stringify(request); // null: nothing yet
  const preview = usePreview(job.id, asked);
  const changing = (set: (text: string) => void) => (text: string): void => {
    setFree(false);
    set(text);
  };
  const resize = useChanged(job, (body: string) => post<JobView>(`/v1/jobs/${job.id}/resize`, JSON.parse(body)), onClose);
  const error = asked === null ? null : ((resize.variables === asked ? resize.error : null) ?? preview.error);
  const wrong = (pointer: string): string | undefined =>
    error instanceof Refused ? error.errors.find((each) => each.pointer === pointer)?.message : undefined;
  return (
    <Dialog title={`Resize ${job.name}`} onClose={onClose}>
      <form
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          if (asked !== null && preview.isOf(asked)) resize.mutate(asked);
        }}
      >
        <div className="pair">
          <Amount label={`Workers (${low} to ${high})`} value={free ? "" : workers} placeholder={free ? "as allowed" : undefined} wrong={outside ? <Outside low={low} high={high} onLimits={onLimits} /> : (amiss.workers ?? wrong("/workers"))} onChange={changing(setWorkers)} />
          <Amount label="From sample" placeholder="now" value={free ? "" : sample} wrong={amiss.sample ?? wrong("/at_samples")} onChange={changing(setSample)} />
        </div>
        {wasAsked(job) && (
          <p className="note">
            {askedFor(job)}{" "}
            <button type="button" aria-pressed={free} onClick={() => setFree(!free)}>As many as allowed</button>
          </p>
        )}
        {error && !wrong("/workers") && !wrong("/at_samples") && <Failure error={error} />}
        {preview.data && asked !== null && !error && <ChangeTable change={preview.data} />}
        <p className="choice">
          <button type="button" onClick={onClose}>Close</button>
          <button className="main" disabled={resize.isPending || asked === null || !preview.isOf(asked)}>
            Resize
          </button>
        </p>
      </form>
    </Dialog>
  );
}

/** Why that is no number of workers or samples; `missing` says it where nothing is typed, and empty that this is allowed. */
function amissOf(text: string, missing: string): string | undefined {
  if (text.trim() === "") return missing || undefined;
  return /^\s*\d+\s*$/.test(text) && Number.isSafeInteger(Number(text)) ? undefined : "Must be a whole number.";
}

function wasAsked({ target_workers, pending_resizes }: JobView): boolean {
  return target_workers !== null || pending_resizes.length > 0;
}

/** The sizes that hold, or will. */
function askedFor({ target_workers, pending_resizes }: JobView): string {
  const now = target_workers === null ? [] : [workersOf(target_workers)];
  const later = pending_resizes.map(({ workers, at_samples }) => `${workersOf(workers)} from sample ${count(at_samples)} on`);
  return `Asked for: ${[...now, ...later].join(", ")}.`;
}

function Outside({ low, high, onLimits }: { low: number; high: number; onLimits: () => void }): ReactNode {
  return (
    <>
      This job may have {low === high ? workersOf(low) : `${low} to ${workersOf(high)}`}.{" "}
      <button type="button" className="quiet" onClick={onLimits}>Change these limits</button>
    </>
  );
}

/** What a request would change; `isOf` says whether that is of this one, and not of what was typed a moment ago. */
function usePreview(id: string, asked: string | null) {
  const settled = useSettled(asked, 250);
  const { data, error, isSuccess, isFetching } = useQuery({
    queryKey: ["resize-preview", id, settled],
    queryFn: ({ signal }) => post<Change>(`/v1/jobs/${id}/resize?dry_run=true`, JSON.parse(settled!), signal),
    enabled: asked !== null && settled !== null,
    placeholderData: keepPreviousData,
    gcTime: 0,
  });
  return { data, error, isOf: (request: string) => isSuccess && !isFetching && settled === request };
}

interface AmountProps {
  label: string;
  placeholder?: string | undefined;
  value: string;
  wrong: ReactNode;
  onChange: (value: string) => void;
}

function Amount({ label, placeholder, value, wrong, onChange }: AmountProps): ReactNode {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        inputMode="numeric"
        autoComplete="off"
        placeholder={placeholder}
        value={value}
        aria-invalid={Boolean(wrong)}
        aria-describedby={wrong ? `${id}:wrong` : undefined}
        onChange={(event) => onChange(event.target.value)}
      />
      {wrong && <span className="error" id={`${id}:wrong`} role="alert">{wrong}</span>}
    </div>
  );
}
