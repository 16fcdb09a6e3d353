/** What a change of size does to each value: a table of before and after, with what is to be known of it. */
import type { ReactNode } from "react";
import type { Change, Values } from "./contract";
import { explain, named, number } from "./wording";

export function ChangeTable({ change }: { change: Change }): ReactNode {
  return (
    <>
      <table className="change">
        <thead>
          <tr>
            <th scope="col">Value</th>
            <th scope="col" className="figure">Before</th>
            <th scope="col" className="figure">After</th>
          </tr>
        </thead>
        <tbody>
          {rowsOf(change).map(([name, before, after]) => (
            <tr key={name} className={before === after ? "same" : undefined}>
              <th scope="row">{name}</th>
              <td className="figure">{before}</td>
              <td className="figure">{after}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <Factors factors={change.state_factors} />
      <Warnings codes={change.warnings} />
    </>
  );
}

export function Warnings({ codes }: { codes: string[] }): ReactNode {
  return codes.map((code) => (
    <p key={code} className="warning">
      {explain(code)}
    </p>
  ));
}

function rowsOf(change: Change): [string, string, string][] {
  const size: [string, string, string][] = (["workers", "batch", "kappa"] as const).map((name) => [
    name,
    number(change[name][0]),
    number(change[name][1]),
  ]);
  const names = Object.keys({ ...change.before, ...change.after });
  const shown = (values: Values, name: string): string => number(values[name]);
  return [...size, ...names.map((name): [string, string, string] => [named(name), shown(change.before, name), shown(change.after, name)])];
}

function Factors({ factors }: { factors: Record<string, number> }): ReactNode {
  const moved = Object.entries(factors).filter(([, factor]) => factor !== 1);
  if (moved.length === 0) return null;
  return (
    <p className="note">
      Optimizer state: {moved.map(([name, factor]) => `${name} × ${number(factor)}`).join(", ")}.
    </p>
  );
}
