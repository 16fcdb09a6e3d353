/** What can be done with a job, each behind a question. */
import { useMutation } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { AmendDialog } from "./amend";
import { post, remove } from "./api";
import { hasEnded, type Checkpoint, type JobView } from "./contract";
import { Dialog, useChanged, type Asked } from "./dialog";
import { useFiles } from "./files";
import { Failure } from "./parts";
import { ResizeDialog } from "./resize";
import { go } from "./route";
import { useMayChange } from "./signin";
import { count, counted } from "./wording";

/** Each is asked anew: one that is closed, of which the page has not heard yet, does not take the next along. */
interface Question {
  about: "resize" | "change" | "pause" | "cancel" | "delete";
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
      <button onClick={() => ask("change")}>Change</button>
      {!ended && !stopping && phase !== "pausing" && phase !== "paused" && (
        <button onClick={() => ask("pause")}>Pause</button>
      )}
      {!ended && !stopping && <button className="danger" onClick={() => ask("cancel")}>Cancel job</button>}
      <a className="button" href={`#/new?from=${job.id}`}>Use as template</a>
      {ended && <button className="danger" onClick={() => ask("delete")}>Delete</button>}
      {asked?.about === "resize" && <ResizeDialog key={asked.time} job={job} onClose={close} onLimits={() => ask("change")} />}
      {asked?.about === "change" && <AmendDialog key={asked.time} job={job} onClose={close} />}
      {asked?.about === "pause" && <PauseDialog key={asked.time} job={job} onClose={close} />}
      {asked?.about === "cancel" && <CancelDialog key={asked.time} job={job} onClose={close} />}
      {asked?.about === "delete" && <DeleteDialog key={asked.time} job={job} onClose={close} />}
    </div>
  );
}

function useRequest(job: JobView, verb: "pause" | "resume" | "cancel", onDone?: () => void) {
  return useChanged(job, () => post<JobView>(`/v1/jobs/${job.id}/${verb}`), onDone);
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
      <p>Its workers stop, and it does not go on. Events, curves and logs stay.</p>
      <Kept job={job} />
      <Failure error={cancel.error} />
      <Choice yes="Cancel the job" no="Let it train" busy={cancel.isPending} onYes={() => cancel.mutate()} onNo={onClose} />
    </Dialog>
  );
}

/** What of the weights is left: nobody writes a checkpoint at a cancel. */
function Kept({ job }: { job: JobView }): ReactNode {
  const checkpoints = useFiles<Checkpoint>(job.id, "checkpoints");
  if (job.progress.samples === 0) return <p>It has not trained yet, so nothing else is lost.</p>;
  if (!checkpoints.data) return <Failure error={checkpoints.error} />;
  const last = checkpoints.data.at(-1);
  const kept = last
    ? `${counted(checkpoints.data.length, "checkpoint")} stay${checkpoints.data.length === 1 ? "s" : ""}, the last of sample ${count(last.samples)}; what it learned since is lost.`
    : "It has no checkpoint, so its weights are lost.";
  return (
    <p>
      {kept} {job.spec.checkpoint.every === null && <>None is made before the end, since <code>checkpoint.every</code> is not set. </>}
      {job.status.phase !== "paused" && "To keep what it has learned so far, pause it instead."}
    </p>
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
