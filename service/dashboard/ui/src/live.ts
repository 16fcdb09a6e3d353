/** What a stream tells, added up; where no stream comes it is asked for, again and again. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { pace } from "./api";
import { useStream, type Message } from "./stream";

interface Source<Kept, Change> {
  address: string; // of the stream; the data are kept by it
  nothing: Kept; // what is known before the first message
  merge: (kept: Kept, change: Change) => Kept;
  ask: (signal: AbortSignal) => Promise<Kept>; // for all of it
  everyMs: number;
}

export function useLive<Kept, Change>(source: Source<Kept, Change>): { data: Kept | undefined; error: Error | null } {
  const { address, nothing, merge, ask, everyMs } = source;
  const client = useQueryClient();
  const key = ["live", address];
  const take = (batch: Message[]): void => {
    client.setQueryData<Kept>(key, (kept: Kept | undefined) =>
      batch.reduce((known, message) => merge(known, JSON.parse(message.data) as Change), kept ?? nothing),
    );
  };
  const state = useStream(address, take);
  return useQuery({
    queryKey: key,
    queryFn: ({ signal }) => ask(signal),
    enabled: state === "broken",
    refetchInterval: pace(everyMs),
  });
}
