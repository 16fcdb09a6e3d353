/** What happened to a job: heard as it happens, asked for where nothing can be heard. */
import { useQuery, useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { get, pace } from "./api";
import { hasEnded, type Event, type JobView, type Page } from "./contract";
import * as curves from "./curves";
import { useStream, type State } from "./stream";
import { clock, describe } from "./wording";

const POLL_MS = 5000;
const SHOWN = 100;

interface Heard {
  events: Event[];
  last: string; // cursor: what comes after it is not known yet
}

const NOTHING: Heard = { events: [], last: "0" };

/**
 * Every event of the job so far, oldest first, and how they are heard. The stream also says what is new in the job's
 * view, which is kept under the key of `useJob`.
 */
export function useEvents(id: string): { events: Event[]; state: State } {
  const client = useQueryClient();
  const key = ["events", id];
  const known = (): Heard => client.getQueryData<Heard>(key) ?? NOTHING;
  const state = useStream(
    known().events.some(isLast) ? null : `/v1/jobs/${id}/events?view=true`,
    (batch) => {
      const fresh = batch.filter(({ kind, id: cursor }) => kind === "message" && Number(cursor) > Number(known().last));
      const events = fresh.map(({ data }) => JSON.parse(data) as Event);
      client.setQueryData(key, longer(known(), events, fresh.at(-1)?.id));
      follow(client, id, events);
      for (const { data } of batch.filter(({ kind }) => kind === "view")) {
        client.setQueryData<JobView>(["job", id], (view) => newer(view, JSON.parse(data) as JobView));
      }
    },
    () => `&after=${known().last}`,
  );
  const { data } = useQuery({
    queryKey: key,
    queryFn: async ({ signal }) => {
      const after = known().last;
      const page = await get<EventPage>(`/v1/jobs/${id}/events?limit=1000&after=${after}`, signal);
      if (after !== known().last) return known(); // a stream told them meanwhile
      follow(client, id, page.items);
      return longer(known(), page.items, page.last ?? undefined);
    },
    enabled: state === "broken",
    refetchInterval: pace(POLL_MS),
  });
  return { events: data?.events ?? NOTHING.events, state };
}

/** The view with its new fields: those that a stream tells, which begins with all of them. */
function newer(view: JobView | undefined, fresh: JobView): JobView {
  return view && fresh.revision <= view.revision ? view : { ...view, ...fresh };
}

interface EventPage extends Page<Event> {
  last: string | null;
}

function longer(known: Heard, events: Event[], last = known.last): Heard {
  return events.length ? { events: [...known.events, ...events], last } : known;
}

/** What was read before these events happened is asked for again. */
function follow(client: QueryClient, id: string, events: Event[]): void {
  if (events.length === 0) return;
  void client.invalidateQueries({ queryKey: ["job", id] });
  if (events.some(({ type }) => type === "checkpoint_saved" || type === "exported")) {
    void client.invalidateQueries({ queryKey: ["files", id] });
  }
  for (const event of events) curves.heard(client, id, event);
}

/** Nothing comes after it. */
function isLast(event: Event): boolean {
  return event.type === "phase" && hasEnded(event.phase);
}

/** The events as sentences, the newest first. */
export function EventsPart({ events }: { events: Event[] }): ReactNode {
  const [shown, setShown] = useState(SHOWN);
  const told = events.flatMap((event) => {
    const text = describe(event);
    return text === null ? [] : [{ event, text }];
  });
  const newest = told.slice(-shown).reverse();
  if (newest.length === 0) return <p className="empty">Nothing has happened yet.</p>;
  return (
    <>
      <ol className="events">
        {newest.map(({ event, text }) => (
          <li key={`${event.incarnation}.${event.sequence}`} className={BAD.includes(event.type) ? "bad" : undefined}>
            <time dateTime={event.at}>{clock(event.at)}</time>
            <span className="kind">{event.type.replaceAll("_", " ")}</span>
            <span>{text}</span>
          </li>
        ))}
      </ol>
      {told.length > shown && <button onClick={() => setShown(shown + SHOWN)}>Older</button>}
    </>
  );
}

const BAD = ["rank_lost", "checkpoint_failed", "rollback", "warning"];
