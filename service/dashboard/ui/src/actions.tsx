/** What can be done with a job, each behind a question. */
import { useMutation, useQuery, useQueryClient, keepPreviousData } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { post, Refused, remove } from "./api";
import { ChangeTable } from "./change";
import { hasEnded, type Change, type JobView, type ResizeRequest } from "./contract";
import { Dialog } from "./dialog";
import { Failure, useSettled } from "./parts";
import { go } from "./route";
import { useMayChange } from "./signin";

/** Each is asked anew: one that is closed, of which the page has not heard yet, does not take the next along. */
interface Question {
  about: "resize" | "pause" | "cancel" | "delete";
  time: number;
}

export function Actions({ job }: { job: JobView }): ReactNode {
  const [asked, setAsked] = useState<Question | null>(null);
  const ask = (about: Question["about"]): void => setAsked({ about, time: performance.now() });
  const mayChange = useMayChange();
  const close = (): void => setAsked(null);
  const { phase } = job.status;
  const ended = hasEnded(phase);
  const stopping = phase === "cancelling";
  if (!mayChange) return null;
  return (
    <div className="actions">
      {phase === "paused" && <Resume job={job} />}
      {!ended && !stopping && <button onClick={() => ask("resize")}>Resize</button>}
      {!ended && !stopping && phase !== "pausing" && phase !== "paused" && (
        <button onClick={() => ask("pause")}>Pause</button>
      )}
      {!ended && !stopping && <button className="danger" onClick={() => ask("cancel")}>Cancel job</button>}
      <a className="button" href={`#/new?from=${job.id}`}>Use as template</a>
      {ended && <button className="danger" onClick={() => ask("delete")}>Delete</button>}
      {asked?.about === "resize" && <ResizeDialog key={asked.time} job={job} onClose={close} />}
      {asked?.about === "pause" && <PauseDialog key={asked.time} job={job} onClose={close} />}
      {asked?.about === "cancel" && <CancelDialog key={asked.time} job={job} onClose={close} />}
      {asked?.about === "delete" && <DeleteDialog key={asked.time} job={job} onClose={close} />}
    </div>
  );
}

interface Asked {
  job: JobView;
  onClose: () => void;
}

/** Asks for what changes where the job is, and shows where it is then. */
function useRequest(job: JobView, verb: "pause" | "resume" | "cancel", onDone?: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => post<JobView>(`/v1/jobs/${job.id}/${verb}`),
    onSuccess: (view) => {
      client.setQueryData(["job", job.id], view);
      onDone?.();
    },
  });
}

function Resume({ job }: { job: JobView }): ReactNode {
  const resume = useRequest(job, "resume");
  return (
    <>
      <button className="main" disabled={resume.isPending} onClick={() => resume.mutate()}>Resume</button>
      <Failure error={resume.error} />
    </>
  );
}

function PauseDialog({ job, onClose }: Asked): ReactNode {
  const pause = useRequest(job, "pause", onClose);
  return (
    <Dialog title={`Pause ${job.name}?`} onClose={onClose}>
      <p>Its workers leave a checkpoint of their last step and stop; others have their slots. Resume it at any size.</p>
      <Failure error={pause.error} />
      <Choice yes="Pause the job" no="Let it train" busy={pause.isPending} onYes={() => pause.mutate()} onNo={onClose} />
    </Dialog>
  );
}

function CancelDialog({ job, onClose }: Asked): ReactNode {
  const cancel = useRequest(job, "cancel", onClose);
  return (
    <Dialog title={`Cancel ${job.name}?`} onClose={onClose}>
      <p>Its workers stop, and it does not go on. Checkpoints, curves and logs stay.</p>
      <Failure error={cancel.error} />
      <Choice yes="Cancel the job" no="Let it train" busy={cancel.isPending} onYes={() => cancel.mutate()} onNo={onClose} />
    </Dialog>
  );
}

function DeleteDialog({ job, onClose }: Asked): ReactNode {
  const erase = useMutation({
    mutationFn: () => remove(`/v1/jobs/${job.id}`),
    onSuccess: () => go("#/jobs", true),
  });
  return (
    <Dialog title={`Delete ${job.name}?`} onClose={onClose}>
      <p>The job goes, with its checkpoints, exported weights, curves and logs. This cannot be undone.</p>
      <Failure error={erase.error} />
      <Choice yes="Delete it all" no="Keep it" busy={erase.isPending} onYes={() => erase.mutate()} onNo={onClose} />
    </Dialog>
  );
}

interface ChoiceProps {
  yes: string;
  no: string;
  busy: boolean;
  onYes: () => void;
  onNo: () => void;
}

function Choice({ yes, no, busy, onYes, onNo }: ChoiceProps): ReactNode {
  return (
    <p className="choice">
      <button onClick={onNo}>{no}</button>
      <button className="danger" disabled={busy} onClick={onYes}>
        {yes}
      </button>
    </p>
  );
}

function ResizeDialog({ job, onClose }: Asked): ReactNode {
  const client = useQueryClient();
  const [low, high] = job.spec.elasticity.workers;
  const [workers, setWorkers] = useState(String(job.target_workers ?? (job.workers || low)));
  const [sample, setSample] = useState("");
  const request: ResizeRequest = { workers: Number(workers), at_samples: sample ? Number(sample) : null };
  const asked = JSON.stringify(request);
  const preview = usePreview(job.id, asked, workers !== "");
  const resize = useMutation({
    mutationFn: (body: string) => post<JobView>(`/v1/jobs/${job.id}/resize`, JSON.parse(body)),
    onSuccess: (view) => {
      client.setQueryData(["job", job.id], view);
      onClose();
    },
  });
  const error = (resize.variables === asked ? resize.error : null) ?? preview.error;
  const wrong = (pointer: string): string | undefined =>
    error instanceof Refused ? error.errors.find((each) => each.pointer === pointer)?.message : undefined;
  return (
    <Dialog title={`Resize ${job.name}`} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          resize.mutate(asked);
        }}
      >
        <div className="pair">
          <Amount label={`Workers (${low} to ${high})`} value={workers} error={wrong("/workers")} onChange={setWorkers} />
          <Amount label="Not before sample (empty: now)" value={sample} error={wrong("/at_samples")} onChange={setSample} />
        </div>
        {error && !wrong("/workers") && !wrong("/at_samples") && <Failure error={error} />}
        {preview.data && !error && <ChangeTable change={preview.data} />}
        <p className="choice">
          <button type="button" onClick={onClose}>Close</button>
          <button className="main" disabled={resize.isPending || !preview.isOf(asked)}>
            Resize
          </button>
        </p>
      </form>
    </Dialog>
  );
}

/** What a request would change; `isOf` says whether that is of this one, and not of what was typed a moment ago. */
function usePreview(id: string, asked: string, ready: boolean) {
  const settled = useSettled(asked, 250);
  const { data, error, isSuccess, isFetching } = useQuery({
    queryKey: ["resize-preview", id, settled],
    queryFn: ({ signal }) => post<Change>(`/v1/jobs/${id}/resize?dry_run=true`, JSON.parse(settled), signal),
    enabled: ready,
    placeholderData: keepPreviousData,
    gcTime: 0,
  });
  return { data, error, isOf: (request: string) => ready && isSuccess && !isFetching && settled === request };
}

interface AmountProps {
  label: string;
  value: string;
  error: string | undefined;
  onChange: (value: string) => void;
}

function Amount({ label, value, error, onChange }: AmountProps): ReactNode {
  return (
    <label className="field">
      <span className="label">{label}</span>
      <input
        type="number"
        inputMode="numeric"
        value={value}
        aria-invalid={error !== undefined}
        onChange={(event) => onChange(event.target.value)}
      />
      {error && <span className="error" role="alert">{error}</span>}
    </label>
  );
}
