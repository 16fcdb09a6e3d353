/** Curves over samples seen, one chart of several that share their x axis, their cursor and their window. */
import { useEffect, useMemo, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Point } from "./contract";
import { colour, useTheme } from "./theme";
import { count, number, ticks } from "./wording";

/** From and to, in samples. */
export type Span = [number, number];

export interface Line {
  label: string;
  points: Point[];
  colour: string; // of the stylesheet
  stepped?: boolean; // the value holds until the next point
  dotted?: boolean; // points may be few: show each where there is room
}

/** A sample at which something happened. */
export interface Mark {
  samples: number;
  bad: boolean;
}

interface Props {
  title: string;
  lines: Line[];
  log?: boolean | undefined; // whether the y axis is logarithmic at first
  marks: Mark[];
  span: Span;
  onZoom: (span: Span | null) => void;
}

const HEIGHT = 170;

export function Chart({ title, lines, log: first = false, marks, span, onZoom }: Props): ReactNode {
  const [index, setIndex] = useState<number | null>(null);
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const now = useRef({ marks, span, onZoom });
  now.current = { marks, span, onZoom };
  const [log, setLog] = useState(first);
  const theme = useTheme();
  const shape = lines.map((line) => line.label).join();
  const positive = lines.every((line) => !line.stepped && line.points.every(([, y]) => y === null || y > 0));
  const [xs, ...columns] = useMemo(() => aligned(lines), [lines]);
  useEffect(() => {
    const target = box.current!;
    const made = new uPlot(options(target.clientWidth, lines, log && positive, now, setIndex), [xs, ...columns], target);
    const resized = new ResizeObserver(() => made.setSize({ width: target.clientWidth, height: HEIGHT }));
    plot.current = made;
    resized.observe(target);
    return () => {
      resized.disconnect();
      made.destroy();
    };
  }, [shape, theme, log && positive]);
  useEffect(() => plot.current?.setData([xs, ...columns]), [lines, marks, span[0], span[1]]);
  return (
    <figure className="chart">
      <figcaption>
        <b>{title}</b>
        {positive && (
          <button className="quiet" aria-pressed={log} aria-label={`log axis of ${title}`} onClick={() => setLog(!log)}>
            log
          </button>
        )}
        <Legend lines={lines} columns={columns} index={index} x={index === null ? undefined : xs[index]} />
      </figcaption>
      <div
        ref={box}
        className="plot"
        role="img"
        aria-label={`${title} over samples seen; arrow keys move the cursor`}
        tabIndex={0}
        onKeyDown={(event) => moveCursor(event, plot.current, xs.length, index)}
      />
    </figure>
  );
}

interface LegendProps {
  lines: Line[];
  columns: Column[];
  index: number | null;
  x: number | undefined;
}

/** What each line is at the cursor, or at last. */
function Legend({ lines, columns, index, x }: LegendProps): ReactNode {
  return (
    <span className="legend">
      {x !== undefined && <span className="at">{count(x)}</span>}
      {lines.map((line, place) => (
        <span key={line.label}>
          <i className={`swatch ${line.colour}`} />
          {line.label} <output>{number(valueAt(columns[place] ?? [], index))}</output>
        </span>
      ))}
    </span>
  );
}

type Column = (number | null)[];

/** The last value up to there: what is measured more rarely still holds. */
function valueAt(column: Column, index: number | null): number | null {
  for (let place = index ?? column.length - 1; place >= 0; place--) {
    const value = column[place];
    if (value !== null && value !== undefined) return value;
  }
  return null;
}

/** All samples at which some line has a point, and the values of each line there. */
function aligned(lines: Line[]): [number[], ...Column[]] {
  const xs = [...new Set(lines.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b);
  const columns = lines.map((line) => {
    const values = new Map(line.points);
    return xs.map((x) => values.get(x) ?? null);
  });
  return [xs, ...columns];
}

/** Arrow keys step from point to point, Home and End to the ends; every chart's cursor goes along. */
function moveCursor(event: KeyboardEvent, plot: uPlot | null, length: number, index: number | null): void {
  const places: Record<string, number> = {
    ArrowLeft: (index ?? length) - 1,
    ArrowRight: (index ?? -1) + 1,
    Home: 0,
    End: length - 1,
  };
  const place = places[event.key];
  if (place === undefined || !plot || length === 0) return;
  event.preventDefault();
  const x = plot.data[0][Math.min(Math.max(place, 0), length - 1)]!;
  (plot.setCursor as Publish)({ left: plot.valToPos(x, "x"), top: 10 }, true, true);
}

/** The third argument, which its types leave out, takes the other charts along. */
type Publish = (at: { left: number; top: number }, fire: boolean, publish: boolean) => void;

function options(
  width: number,
  lines: Line[],
  log: boolean,
  now: { current: Pick<Props, "marks" | "span" | "onZoom"> },
  onIndex: (index: number | null) => void,
): uPlot.Options {
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: FONT };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    padding: [8, 20, 0, 0],
    cursor: {
      sync: { key: "samples", scales: ["x", null] },
      drag: { x: true, y: false, setScale: false },
      points: { size: 6 },
      bind: { dblclick: () => () => (now.current.onZoom(null), null) },
    },
    scales: {
      x: { time: false, range: () => now.current.span },
      y: log ? { distr: 3 } : { range: (_, low, high) => reach(low, high, lines[0]?.stepped ?? false) },
    },
    axes: [
      { ...axis, values: (_, values) => ticks(values), size: 26, space: 60 },
      { ...axis, values: (_, values) => ticks(values), size: room, space: 28, ...steps(lines) },
    ],
    series: [{}, ...lines.map(series)],
    hooks: {
      drawClear: [(plot) => drawMarks(plot, now.current.marks)],
      setCursor: [(plot) => onIndex(plot.cursor.idx ?? null)],
      setSelect: [(plot) => select(plot, now.current.onZoom)],
    },
  };
}

/** From which value to which the y axis goes. What is level by nature is shown from zero, what happens to be, closely. */
function reach(low: number | null, high: number | null, stepped: boolean): uPlot.Range.MinMax {
  if (low === null || high === null) return [0, 1]; // nothing is in the window
  return low === high && !stepped ? [0.99 * low, 1.01 * high] : uPlot.rangeNum(low, high, 0.1, true);
}

/** For the labels of the y axis, in pixels. */
function room(_: uPlot, labels: string[] | null): number {
  const longest = Math.max(0, ...(labels ?? []).map((label) => label.length));
  return Math.max(60, 16 + 6.5 * longest);
}

/** What counts things has no ticks between them. */
function steps(lines: Line[]): uPlot.Axis {
  const counts = lines.every((line) => line.stepped && line.points.every(([, y]) => Number.isInteger(y)));
  return counts ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] } : {};
}

const FONT = "11px system-ui, sans-serif";

function series(line: Line): uPlot.Series {
  return {
    stroke: colour(line.colour),
    width: 1.5,
    spanGaps: true,
    points: { size: 4, ...(line.dotted ? {} : { show: alone }) },
    ...(line.stepped ? { paths: uPlot.paths.stepped!({ align: 1 }) } : {}),
  };
}

/** Whether a line has a single point, which nothing else would show. */
function alone(plot: uPlot, line: number): boolean {
  return [...plot.data[line]!].filter((value) => value !== null).length === 1;
}

function select(plot: uPlot, onZoom: Props["onZoom"]): void {
  const { left, width } = plot.select;
  if (width < 4) return;
  const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  onZoom([Math.max(0, Math.floor(from)), Math.ceil(to)]);
}

/** A line at each change of size, below the curves. */
function drawMarks(plot: uPlot, marks: Mark[]): void {
  const { ctx, bbox } = plot;
  const [good, worse] = [colour("mark"), colour("bad")];
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const { samples, bad } of marks) {
    const x = Math.round(plot.valToPos(samples, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = bad ? worse : good;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}
