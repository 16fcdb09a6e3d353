/** Changes what may change while a job lives: its limits, its priority, its labels. Of one that has ended, the labels. */
import { useQuery } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { get, patch, Refused } from "./api";
import { hasEnded, type JobView } from "./contract";
import { Dialog, useChanged, type Asked } from "./dialog";
import { Errors, leadTo, Wrong } from "./errors";
import { Fields } from "./field";
import { answered } from "./pairs";
import { Failure } from "./parts";
import { inner, isData, same, specOf, type Api, type Data, type Node } from "./schema";

const LIMITS = ["workers", "kappa"];

export function AmendDialog({ job, onClose }: Asked): ReactNode {
  const api = useQuery({ queryKey: ["api"], queryFn: ({ signal }) => get<Api>("/openapi.json", signal), staleTime: Infinity });
  if (!api.data && !api.error) return null;
  return (
    <Dialog title={`Change ${job.name}`} onClose={onClose}>
      {api.data ? <Form job={job} onClose={onClose} node={specOf(api.data)} /> : <Failure error={api.error} />}
    </Dialog>
  );
}

function Form({ job, onClose, node }: Asked & { node: Node }): ReactNode {
  const ended = hasEnded(job.status.phase);
  const [before] = useState(job.spec); // as it was shown: what others change meanwhile stays
  const [spec, setSpec] = useState<Data>(before);
  const elasticity = isData(spec.elasticity) ? spec.elasticity : {};
  const limits = inner(node.schema.properties!.elasticity!, node.root);
  const others = ended ? ["labels"] : ["priority", "labels"];
  const moved = differing(limits, LIMITS, elasticity, before.elasticity);
  const change = { ...(Object.keys(moved).length > 0 && { elasticity: moved }), ...differing(node, others, spec, before) };
  const amend = useChanged(job, (wish: Data) => answered(patch<JobView>(`/v1/jobs/${job.id}`, wish), wish), onClose);
  const errors = amend.error instanceof Refused ? amend.error.errors : [];
  return (
    <form
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        amend.mutate(change, { onError: (error) => error instanceof Refused && leadTo(error.errors) });
      }}
    >
      <Errors value={errors}>
        {ended && <p className="note">It has ended: only its labels can be changed.</p>}
        <div className="grid">
          {!ended && (
            <Fields node={limits} names={LIMITS} pointer="/elasticity" value={elasticity} onChange={(value) => setSpec({ ...spec, elasticity: value })} />
          )}
          <Fields node={node} names={others} pointer="" value={spec} onChange={(value) => setSpec(value as Data)} />
        </div>
        <Wrong pointer="/elasticity" />
      </Errors>
      {errors.length === 0 && <Failure error={amend.error} />}
      <p className="choice">
        <button type="button" onClick={onClose}>Close</button>
        <button className="main" disabled={amend.isPending || Object.keys(change).length === 0}>
          Change
        </button>
      </p>
    </form>
  );
}

/** Those of the names under which something else stands now; nothing there is the default. */
function differing({ schema }: Node, names: string[], now: Data, before: Data): Data {
  const said = names.map((name): [string, unknown] => [name, now[name] ?? schema.properties![name]!.default]);
  return Object.fromEntries(said.filter(([name, value]) => !same(value, before[name])));
}
