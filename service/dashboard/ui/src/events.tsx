/** What happened to a job: the newest at first, older ones on demand; then heard as it happens, or asked for. */
import { useMutation, useQuery, useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { get, pace } from "./api";
import { hasEnded, type Event, type JobView, type Page } from "./contract";
import * as curves from "./curves";
import { Failure, Time } from "./parts";
import { useStream, type State } from "./stream";
import { describe } from "./wording";

const POLL_MS = 5000;
const SHOWN = 100;

/** An unbroken piece of the job's history, oldest first. */
export interface Heard {
  events: Event[];
  last: string; // cursor: what comes after it is not known yet
  older: string | null; // cursor back to what was before; null: it begins with the first
}

const NOTHING: Heard = { events: [], last: "0", older: null };

/**
 * The newest events of the job, and how more are heard. The stream also says what is new in the job's view, which is
 * kept under the key of `useJob`.
 */
export function useEvents(id: string): { heard: Heard; state: State } {
  const client = useQueryClient();
  const key = keyOf(id);
  const known = (): Heard => client.getQueryData<Heard>(key) ?? NOTHING;
  const begun = client.getQueryData(key) !== undefined;
  const state = useStream(
    !begun || known().events.some(isLast) ? null : `/v1/jobs/${id}/events?view=true`,
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
  const { data, isError } = useQuery({
    queryKey: key,
    queryFn: async ({ signal }) => {
      if (client.getQueryData(key) === undefined) return newest(id, signal);
      const after = known().last;
      const page = await get<EventPage>(`/v1/jobs/${id}/events?limit=1000&after=${after}`, signal);
      if (after !== known().last) return known(); // a stream told them meanwhile
      follow(client, id, page.items);
      return longer(known(), page.items, page.last ?? undefined);
    },
    enabled: !begun || state === "broken",
    refetchInterval: pace(POLL_MS),
  });
  if (!data) return { heard: NOTHING, state: isError ? "broken" : "opening" };
  return { heard: data, state };
}

function keyOf(id: string): string[] {
  return ["events", id];
}

async function newest(id: string, signal: AbortSignal): Promise<Heard> {
  const page = await get<EventPage>(`/v1/jobs/${id}/events?newest_first=true&limit=${SHOWN}`, signal);
  return { events: page.items.reverse(), last: page.last ?? NOTHING.last, older: page.next };
}

/** Those before the ones that are known. */
async function older(client: QueryClient, id: string, from: string): Promise<void> {
  const page = await get<EventPage>(`/v1/jobs/${id}/events?newest_first=true&limit=${SHOWN}&after=${from}`);
  client.setQueryData<Heard>(
    keyOf(id),
    (known) => known && { ...known, events: [...page.items.reverse(), ...known.events], older: page.next },
  );
}

/** The view with its new fields: those that a stream tells, which begins with all of them. */
function newer(view: JobView | undefined, fresh: JobView): JobView {
  return view && fresh.revision <= view.revision ? view : { ...view, ...fresh };
}

interface EventPage extends Page<Event> {
  last: string | null;
}

function longer(known: Heard, events: Event[], last = known.last): Heard {
  return events.length ? { ...known, events: [...known.events, ...events], last } : known;
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
export function EventsPart({ id, heard }: { id: string; heard: Heard }): ReactNode {
  const client = useQueryClient();
  const [shown, setShown] = useState(SHOWN);
  const back = useMutation({ mutationFn: (from: string) => older(client, id, from) });
  const { events } = heard;
  const told = events.slice(-shown).reverse().flatMap((event) => {
    const text = describe(event);
    return text === null ? [] : [{ event, text }];
  });
  const showOlder = (): void => {
    setShown(shown + SHOWN);
    if (heard.older !== null && events.length < shown + SHOWN) back.mutate(heard.older);
  };
  if (events.length === 0) return <p className="empty">Nothing has happened yet.</p>;
  return (
    <>
      <ol className="events">
        {told.map(({ event, text }) => (
          <li key={`${event.incarnation}.${event.sequence}`} className={BAD.includes(event.type) ? "bad" : undefined}>
            <Time at={event.at} />
            <span className="kind">{event.type.replaceAll("_", " ")}</span>
            <span>{text}</span>
          </li>
        ))}
      </ol>
      <Failure error={back.error} />
      {(events.length > shown || heard.older !== null) && (
        <button disabled={back.isPending} onClick={showOlder}>
          Older
        </button>
      )}
    </>
  );
}

const BAD = ["rank_lost", "checkpoint_failed", "rollback", "warning"];
