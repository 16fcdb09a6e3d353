/** The loss of a job in the list: a line of a few points, asked for again only when the job got on by a fiftieth. */
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { get } from "./api";
import type { Curves, JobRow } from "./contract";
import { number, share } from "./wording";

const POINTS = 32;
const WIDTH = 96;
const HEIGHT = 22;

export function Sparkline({ row }: { row: JobRow }): ReactNode {
  const step = Math.ceil(50 * share(row.progress));
  const { data } = useQuery({
    queryKey: ["sparkline", row.id, step],
    queryFn: ({ signal }) => get<Curves>(`/v1/jobs/${row.id}/metrics?name=loss&points=${POINTS}`, signal),
    enabled: row.progress.samples > 0,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
  });
  const points = (data?.series.loss ?? []).flatMap(([x, y]) => (y === null ? [] : [[x, y] as const]));
  const last = points.at(-1);
  if (!last) return "–";
  return (
    <span className="sparkline">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} aria-hidden="true">
        <polyline points={drawn(points)} />
      </svg>
      {number(last[1])}
    </span>
  );
}

function drawn(points: (readonly [number, number])[]): string {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const scale = (value: number, values: number[], size: number): number => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return high > low ? (size * (value - low)) / (high - low) : size / 2;
  };
  return points
    .map(([x, y]) => `${scale(x, xs, WIDTH).toFixed(1)},${(HEIGHT - 1 - scale(y, ys, HEIGHT - 2)).toFixed(1)}`)
    .join(" ");
}
