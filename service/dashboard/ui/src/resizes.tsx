/** What each change of size of a job did. */
import { useInfiniteQuery } from "@tanstack/react-query";
import { useEffect, useState, type ReactNode } from "react";
import { get } from "./api";
import { ChangeTable } from "./change";
import type { Page, Resize, Values } from "./contract";
import { Failure, Move, Table, Time } from "./parts";
import { count, counted, number, seconds } from "./wording";

const PAGE = 200;

export function ResizesPart({ id, happened }: { id: string; happened: number }): ReactNode {
  const query = useResizes(id, happened);
  const rows = (query.data?.pages ?? []).flatMap((page) => page.items);
  if (query.error) return <Failure error={query.error} />;
  if (query.data && rows.length === 0) return <p className="empty">It has not changed its size.</p>;
  return (
    <>
      <Table label="Resizes">
        <thead>
          <tr>
            <th scope="col" className="figure">Sample</th>
            <th scope="col">Cause</th>
            <th scope="col">Workers</th>
            <th scope="col">Kappa</th>
            <th scope="col">Batch</th>
            <th scope="col">lr</th>
            <th scope="col">rho</th>
            <th scope="col" className="figure">Pause</th>
            <th scope="col">Lost</th>
            <th scope="col">Time</th>
            <th scope="col">Values</th>
          </tr>
        </thead>
        {rows.map((row) => (
          <Row key={row.id} row={row} />
        ))}
      </Table>
      {query.hasNextPage && <button onClick={() => void query.fetchNextPage()}>More</button>}
    </>
  );
}

/** Asked for again when one more has happened. */
function useResizes(id: string, happened: number) {
  const query = useInfiniteQuery({
    queryKey: ["resizes", id],
    queryFn: ({ pageParam, signal }) =>
      get<Page<Resize>>(`/v1/jobs/${id}/resizes?limit=${PAGE}${pageParam ? `&after=${pageParam}` : ""}`, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next,
  });
  const { refetch } = query;
  useEffect(() => void (happened > 0 && refetch()), [happened, refetch]);
  return query;
}

function Row({ row }: { row: Resize }): ReactNode {
  const [open, setOpen] = useState(false);
  return (
    <tbody>
      <tr>
        <th scope="row" className="figure">{count(row.samples)}</th>
        <td title={row.reason}>{row.cause}</td>
        <td><Pair values={row.workers} /></td>
        <td><Pair values={row.kappa} /></td>
        <td><Pair values={row.batch} /></td>
        <td><Named name="lr" row={row} /></td>
        <td><Named name="ema_momentum" row={row} /></td>
        <td className="figure">{seconds(row.pause_s)}</td>
        <td>{counted(row.steps_lost, "step")}</td>
        <td><Time at={row.at} /></td>
        <td>
          <button className="quiet" aria-expanded={open} onClick={() => setOpen(!open)}>
            {open ? "Hide" : "All"}
            {row.warnings.length > 0 && <span className="warned"> {counted(row.warnings.length, "warning")}</span>}
          </button>
        </td>
      </tr>
      {open && (
        <tr>
          <td colSpan={11} className="details">
            <p className="note">{row.reason}</p>
            <ChangeTable change={row} />
          </td>
        </tr>
      )}
    </tbody>
  );
}

function Pair({ values: [from, to] }: { values: [unknown, unknown] }): ReactNode {
  return <Move from={number(from)} to={number(to)} />;
}

function Named({ name, row }: { name: string; row: { before: Values; after: Values } }): ReactNode {
  return <Pair values={[row.before[name], row.after[name]]} />;
}
