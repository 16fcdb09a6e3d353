/** The list of jobs: a page of it, live. */
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState, type ReactNode } from "react";
import { get } from "./api";
import { fallsShort, hasEnded, PHASES, type JobChanges, type JobRow, type Page, type Recipe, type Status } from "./contract";
import { useLive } from "./live";
import { Bar, Failure, PhaseBadge, Table, useNow, useSettled, useTitle } from "./parts";
import { go, to } from "./route";
import { useMayChange } from "./signin";
import { Sparkline } from "./sparkline";
import { age, duration, number, share, stamp, workers } from "./wording";

const LIVING = PHASES.filter((phase) => !hasEnded(phase));
const GROUPS: Record<string, string[]> = { active: LIVING, ended: PHASES.filter(hasEnded) };
const TOLD = ["queued", "recovering", "pausing", "paused", "failed"];
const POLL_MS = 5000;

interface Listed {
  ids: string[];
  rows: Record<string, JobRow>;
  next: string | null;
}

type Filters = Record<"status" | "name" | "recipe" | "label" | "after", string>;

export function JobsScreen({ query }: { query: URLSearchParams }): ReactNode {
  useTitle("Jobs");
  const filters = filtersIn(query);
  const address = addressOf(filters);
  const listed = useLive({
    address,
    nothing: NONE,
    merge,
    ask: async (signal) => wholly(await get<Page<JobRow>>(address, signal)),
    everyMs: POLL_MS,
  });
  return (
    <>
      <div className="head">
        <h1>Jobs</h1>
        <FilterBar filters={filters} rows={Object.values(listed.data?.rows ?? {})} />
      </div>
      <Failure error={listed.error} />
      {listed.data && <JobList listed={listed.data} filters={filters} />}
    </>
  );
}

function JobList({ listed, filters }: { listed: Listed; filters: Filters }): ReactNode {
  const now = useNow();
  const rows = listed.ids.flatMap((id) => listed.rows[id] ?? []);
  if (rows.length === 0) return <Nothing filtered={Object.values(filters).some(Boolean)} />;
  return (
    <>
      <Table label="Jobs">
        <thead>
          <tr>
            <th scope="col">Job</th>
            <th scope="col">Status</th>
            <th scope="col">Progress</th>
            <th scope="col" className="low">Loss</th>
            <th scope="col" className="figure low">Workers</th>
            <th scope="col" className="figure low">Kappa</th>
            <th scope="col" className="low">Recipe</th>
            <th scope="col" className="figure low">Priority</th>
            <th scope="col" className="figure low">Age</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <Row key={row.id} row={row} now={now} />
          ))}
        </tbody>
      </Table>
      <Pages filters={filters} next={listed.next} />
    </>
  );
}

function Row({ row, now }: { row: JobRow; now: number }): ReactNode {
  const { status, progress } = row;
  return (
    <tr>
      <th scope="row">
        <a href={`#/jobs/${row.id}`}>{row.name}</a>
        <Labels labels={row.labels} />
      </th>
      <td>
        <PhaseBadge phase={status.phase} />
        {isTold(status) && <span className="why">{status.message}</span>}
        {row.workers > 0 && <span className="why narrow">{workers(row.workers)}, kappa {number(row.kappa)}</span>}
      </td>
      <td>
        <Bar part={share(progress)} label={`Progress of ${row.name}`} />
        {progress.eta_s !== null && <span className="why">{duration(progress.eta_s)} left</span>}
      </td>
      <td className="low">
        <Sparkline row={row} />
      </td>
      <td className="figure low">{row.workers || "–"}</td>
      <td className="figure low">{number(row.kappa)}</td>
      <td className="low">{row.recipe}</td>
      <td className="figure low">{row.priority}</td>
      <td className="figure low" title={stamp(row.created_at)}>{age(row.created_at, now)}</td>
    </tr>
  );
}

/** Whether the reason is worth a line: why it does not train, or not as it might. */
function isTold(status: Status): boolean {
  return TOLD.includes(status.phase) || fallsShort(status);
}

function Labels({ labels }: { labels: Record<string, string> }): ReactNode {
  const pairs = Object.entries(labels);
  if (pairs.length === 0) return null;
  return <span className="why">{pairs.map(([name, value]) => `${name}=${value}`).join(" ")}</span>;
}

function Nothing({ filtered }: { filtered: boolean }): ReactNode {
  const mayChange = useMayChange();
  if (filtered) {
    return (
      <p className="empty">
        No job is like that. <a href="#/jobs">Show all of them</a>.
      </p>
    );
  }
  return (
    <div className="empty">
      <p>There are no jobs yet.</p>
      {mayChange && (
        <>
          <p>
            <a className="button" href="#/new">Make the first one</a>
          </p>
          <p>
            Or on the command line: <code>emascale submit job.yaml</code>
          </p>
        </>
      )}
    </div>
  );
}

function Pages({ filters, next }: { filters: Filters; next: string | null }): ReactNode {
  if (!next && !filters.after) return null;
  return (
    <nav aria-label="Pages" className="pages">
      {filters.after && <a href={to("/jobs", { ...filters, after: "" })}>Newest</a>}
      {next && <a href={to("/jobs", { ...filters, after: next })}>Older</a>}
    </nav>
  );
}

function FilterBar({ filters, rows }: { filters: Filters; rows: JobRow[] }): ReactNode {
  const recipes = useQuery({
    queryKey: ["recipes"],
    queryFn: ({ signal }) => get<Page<Recipe>>("/v1/recipes", signal),
    staleTime: Infinity,
  });
  const known = [...(recipes.data?.items ?? []).map((recipe) => recipe.name), ...rows.map((row) => row.recipe)];
  const names = [...new Set([...known, filters.recipe].filter(Boolean))].sort();
  const pairs = rows.flatMap((row) => Object.entries(row.labels).map(([name, value]) => `${name}=${value}`));
  const labels = [...new Set([...pairs, filters.label].filter(Boolean))].sort();
  const change = (changed: Partial<Filters>): void => go(to("/jobs", { ...filters, after: "", ...changed }), true);
  return (
    <search className="filters">
      <NameFilter name={filters.name} onChange={(name) => change({ name })} />
      <select aria-label="Status" value={filters.status} onChange={(event) => change({ status: event.target.value })}>
        <option value="">any status</option>
        {[...Object.keys(GROUPS), ...PHASES].map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
      <select aria-label="Recipe" value={filters.recipe} onChange={(event) => change({ recipe: event.target.value })}>
        <option value="">any recipe</option>
        {names.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
      <select aria-label="Label" value={filters.label} onChange={(event) => change({ label: event.target.value })}>
        <option value="">any label</option>
        {labels.map((label) => (
          <option key={label}>{label}</option>
        ))}
      </select>
    </search>
  );
}

function NameFilter({ name, onChange }: { name: string; onChange: (name: string) => void }): ReactNode {
  const [text, setText] = useState(name);
  const settled = useSettled(text, 300);
  const agreed = useRef(name); // with the address
  useEffect(() => {
    if (settled === agreed.current) return;
    agreed.current = settled;
    onChange(settled);
  }, [settled]);
  useEffect(() => {
    if (name === agreed.current) return;
    agreed.current = name; // another way than by this field: a link, or back
    setText(name);
  }, [name]);
  return (
    <input
      type="search"
      aria-label="Name begins with"
      placeholder="name begins with"
      value={text}
      onChange={(event) => setText(event.target.value)}
    />
  );
}

function filtersIn(query: URLSearchParams): Filters {
  const value = (name: string): string => query.get(name) ?? "";
  return {
    status: value("status"),
    name: value("name"),
    recipe: value("recipe"),
    label: value("label"),
    after: value("after"),
  };
}

function addressOf({ status, name, recipe, label, after }: Filters): string {
  const phases = GROUPS[status] ?? status;
  return `/v1/jobs${to("", { status: phases, name: name && `${name}*`, recipe, label, after }).replace("#", "")}`;
}

const NONE: Listed = { ids: [], rows: {}, next: null };

function merge(listed: Listed, { items, ids, next }: JobChanges): Listed {
  const known = { ...listed.rows, ...byId(items) };
  const order = ids ?? listed.ids;
  return { ids: order, rows: byId(order.flatMap((id) => known[id] ?? [])), next };
}

function wholly({ items, next }: Page<JobRow>): Listed {
  return { ids: items.map((row) => row.id), rows: byId(items), next };
}

function byId(rows: JobRow[]): Record<string, JobRow> {
  return Object.fromEntries(rows.map((row) => [row.id, row]));
}
