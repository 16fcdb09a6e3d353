/** A new job: a form made from the service's own schemas, or YAML; beside it what the scaling rules make of it. */
import { keepPreviousData, useMutation, useQuery } from "@tanstack/react-query";
import { useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import { get, hand, Refused, type Document } from "./api";
import type { JobPreview, JobView, Page, Recipe } from "./contract";
import { Errors, leadTo } from "./errors";
import { Fields } from "./field";
import { answered } from "./pairs";
import { Failure, useSettled, useTitle } from "./parts";
import { RecipeFields } from "./recipe";
import { go } from "./route";
import { inner, isData, specOf, withoutDefaults, type Api, type Data, type Node } from "./schema";
import { useMayChange } from "./signin";
import { Sizes } from "./sizes";
import { toYaml } from "./yaml";

const MAIN = ["optimizer", "schedule", "batch", "ema", "elasticity"];
const BEGINNING: Data = {
  name: "digits",
  recipe: { name: "classify" },
  optimizer: { name: "adamw", lr: 0.001 },
  schedule: { budget: "50 epochs", warmup: "2 epochs", lr: "cosine" },
  batch: { base: 64, per_worker: 64 },
  ema: { momentum: 0.99 },
  elasticity: { workers: [1, 4] },
  evaluation: { every: "2 epochs" },
};

/** What the form needs before it can be shown. */
interface Ground {
  node: Node; // of a job spec
  recipes: Recipe[];
  beginning: Data;
}

export function CreateScreen({ from }: { from: string | null }): ReactNode {
  useTitle("New job");
  const mayChange = useMayChange();
  const ground = useQuery({
    queryKey: ["ground", from],
    queryFn: ({ signal }) => prepare(from, signal),
    staleTime: Infinity,
    gcTime: 0,
  });
  if (!mayChange) return <p className="empty">Your token is for looking: to submit a job takes one of scope submit.</p>;
  return (
    <>
      <Failure error={ground.error} />
      {ground.data && <Editor ground={ground.data} />}
    </>
  );
}

async function prepare(from: string | null, signal: AbortSignal): Promise<Ground> {
  const [api, recipes, template] = await Promise.all([
    get<Api>("/openapi.json", signal),
    get<Page<Recipe>>("/v1/recipes", signal),
    from ? get<JobView>(`/v1/jobs/${from}`, signal) : undefined,
  ]);
  const node = specOf(api);
  return { node, recipes: recipes.items, beginning: template ? withoutDefaults(template.spec, node) : BEGINNING };
}

function Editor({ ground }: { ground: Ground }): ReactNode {
  const [spec, setSpec] = useState(ground.beginning);
  const [yaml, setYaml] = useState<string | null>(null); // null: the form is shown
  const body = useMemo(() => draftOf(spec, yaml), [spec, yaml]);
  const preview = usePreview(body);
  const submit = useSubmit(body);
  const error = preview.error ?? (submit.variables === body ? submit.error : null);
  const errors = error instanceof Refused ? error.errors : [];
  const found = useRef<HTMLElement>(null);
  useEffect(() => {
    if (submit.error instanceof Refused && !leadTo(submit.error.errors)) found.current?.focus();
  }, [submit.error]);
  const toForm = (): void => {
    if (!preview.data) return;
    setSpec(withoutDefaults(preview.data.spec, ground.node));
    setYaml(null);
  };
  return (
    <>
      <div className="head">
        <h1>New job</h1>
        <div className="actions">
          {yaml === null ? (
            <button onClick={() => setYaml(toYaml(JSON.parse(body.text)))}>As YAML</button>
          ) : (
            <button onClick={toForm} disabled={!preview.ready}>As a form</button>
          )}
          <button className="main" onClick={() => submit.mutate(body)} disabled={submit.isPending}>
            Submit
          </button>
        </div>
      </div>
      <Errors value={errors}>
        <div className="editor">
          {yaml === null ? (
            <Form ground={ground} spec={spec} onChange={setSpec} />
          ) : (
            <textarea className="yaml" aria-label="Job as YAML" spellCheck={false} value={yaml} onChange={(event) => setYaml(event.target.value)} />
          )}
          <aside ref={found} tabIndex={-1} aria-label="Preview">
            <h2>What the scaling rules make of it</h2>
            <Found error={error} />
            {preview.data && <Sizes sizes={preview.data.sizes} />}
            {preview.data?.warnings.map((text) => <p key={text} className="note">{text}</p>)}
          </aside>
        </div>
      </Errors>
    </>
  );
}

/** A job as it was typed, and the data of the form that it was typed into. */
interface Draft extends Document {
  data?: Data;
}

function draftOf(spec: Data, yaml: string | null): Draft {
  if (yaml !== null) return { text: yaml, kind: "application/yaml" };
  return { text: JSON.stringify(spec), kind: "application/json", data: spec };
}

/** The dry run of what was typed; `ready`: it is that of what stands there now, and nothing is wrong with it. */
function usePreview(body: Draft) {
  const settled = useSettled(body, 300);
  const query = useQuery({
    queryKey: ["dry-run", settled],
    queryFn: ({ signal }) => answered(hand<JobPreview>("/v1/jobs?dry_run=true", settled, {}, signal), settled.data),
    placeholderData: keepPreviousData,
    refetchOnWindowFocus: false,
  });
  return { data: query.data, error: query.error, ready: settled === body && query.isSuccess && !query.isPlaceholderData };
}

/** The same body is submitted once, however often it is sent. */
function useSubmit(body: Draft) {
  const key = useMemo(randomKey, [body]);
  return useMutation({
    mutationFn: (draft: Draft) => answered(hand<JobView>("/v1/jobs", draft, { "Idempotency-Key": key }), draft.data),
    onSuccess: (job) => go(`#/jobs/${job.id}`),
  });
}

/** Not `randomUUID`, which browsers have on https and on this machine alone. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function Form({ ground: { node, recipes }, spec, onChange }: { ground: Ground; spec: Data; onChange: (spec: Data) => void }): ReactNode {
  const shared = { node, pointer: "", value: spec, onChange: (value: unknown) => onChange(value as Data) };
  const others = Object.keys(node.schema.properties ?? {}).filter((name) => !["name", "recipe", ...MAIN].includes(name));
  const recipe = isData(spec.recipe) ? spec.recipe : {};
  return (
    <form onSubmit={(event) => event.preventDefault()}>
      <div className="grid">
        <Fields {...shared} names={["name"]} />
      </div>
      <RecipeFields node={inner(node.schema.properties!.recipe!, node.root)} recipes={recipes} value={recipe} onChange={(value) => onChange({ ...spec, recipe: value })} />
      <Fields {...shared} names={MAIN} />
      <details className="more">
        <summary>More: scaling, resources, checkpoints, priority and others</summary>
        <div className="grid">
          <Fields {...shared} names={others} />
        </div>
      </details>
    </form>
  );
}

/** All that is wrong in one place, each error leading to its field. */
function Found({ error }: { error: Error | null }): ReactNode {
  if (!(error instanceof Refused) || error.errors.length === 0) return <Failure error={error} />;
  return (
    <ul className="found" role="alert">
      {error.errors.map((each) => (
        <li key={each.pointer + each.message}>
          <button type="button" className="quiet" onClick={() => leadTo([each])}>
            {placeOf(each.pointer)}
          </button>{" "}
          {each.message}
        </li>
      ))}
    </ul>
  );
}

/** A JSON pointer as a path with dots; `?name` and the name of a header stay as they are. */
function placeOf(pointer: string): string {
  const path = pointer.replace(/^\//, "").replaceAll("/", ".");
  return path.replaceAll("~1", "/").replaceAll("~0", "~") || "the whole";
}
