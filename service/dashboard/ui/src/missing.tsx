/** An address that is no job's id: perhaps it is the name of one, or of several. */
import { useQuery } from "@tanstack/react-query";
import { useEffect, type ReactNode } from "react";
import { get } from "./api";
import type { JobRow, Page } from "./contract";
import { Failure, PhaseBadge, Time } from "./parts";
import { go, to } from "./route";

const SHOWN = 20;

/** Goes on to the one job of that name; the address may also say which of the parts is wanted. */
export function Missing({ address, parts }: { address: string; parts: string[] }): ReactNode {
  const part = parts.find((each) => address.endsWith(`/${each}`)) ?? "";
  const name = decoded(part ? address.slice(0, -part.length - 1) : address);
  const { data, error } = useQuery({
    queryKey: ["named", name],
    queryFn: ({ signal }) => named(name, signal),
    gcTime: 0,
  });
  const only = data?.items.length === 1 && data.items[0]!.id;
  useEffect(() => {
    if (only) go(`#/jobs/${only}/${part}`, true);
  }, [only, part]);
  if (error) return <Failure error={error} />;
  if (!data || only) return null;
  return data.items.length === 0 ? <Nobody name={name} /> : <Several name={name} page={data} />;
}

function decoded(written: string): string {
  try {
    return decodeURIComponent(written);
  } catch {
    return written;
  }
}

/** The jobs of that name. No name holds a `*`, which the service would take for any ending. */
async function named(name: string, signal: AbortSignal): Promise<Page<JobRow>> {
  if (name.includes("*")) return { items: [], next: null };
  return get<Page<JobRow>>(`/v1/jobs?${new URLSearchParams({ name, limit: String(SHOWN) })}`, signal);
}

function Nobody({ name }: { name: string }): ReactNode {
  return (
    <p className="empty">
      There is no job <code>{name}</code>, by id or by name; it may have been deleted. <a href="#/jobs">See the jobs</a>.
    </p>
  );
}

function Several({ name, page: { items, next } }: { name: string; page: Page<JobRow> }): ReactNode {
  return (
    <>
      <h1>
        {next ? `More than ${SHOWN}` : items.length} jobs are named {name}
      </h1>
      <ul className="named">
        {items.map(({ id, status, created_at }) => (
          <li key={id}>
            <a href={`#/jobs/${id}`}>{id}</a> <PhaseBadge phase={status.phase} /> <small>submitted <Time at={created_at} /></small>
          </li>
        ))}
      </ul>
      {next && <a href={to("/jobs", { name })}>See all whose name begins so</a>}
    </>
  );
}
