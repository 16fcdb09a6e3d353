/** The sizes that a job may have: what differs between them as a table, the rest in a sentence. */
import type { ReactNode } from "react";
import type { Size } from "./contract";
import { Table } from "./parts";
import { explain, named, number } from "./wording";

const FIRST = ["lr", "ema_momentum"]; // what one looks for

export function Sizes({ sizes }: { sizes: Size[] }): ReactNode {
  const told = sizes.filter((size) => size.error === null);
  const known = (name: string): boolean => told.some((size) => name in size.values);
  const names = [...new Set([...FIRST, ...told.flatMap((size) => Object.keys(size.values))])].filter(known);
  const differs = (name: string): boolean => new Set(told.map((size) => number(size.values[name]))).size > 1;
  const moving = names.filter((name) => told.length === 1 || differs(name));
  const fixed = names.filter((name) => !moving.includes(name));
  return (
    <>
      <Table label="Sizes">
        <thead>
          <tr>
            {["Workers", "Batch", "Kappa", ...moving.map(named)].map((name) => (
              <th scope="col" key={name} className="figure">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sizes.map((size) => (
            <Row key={size.workers} size={size} names={moving} />
          ))}
        </tbody>
      </Table>
      {fixed.length > 0 && (
        <p className="note">At every size: {fixed.map((name) => `${named(name)} ${number(told[0]!.values[name])}`).join(", ")}.</p>
      )}
      <Notes sizes={sizes} />
    </>
  );
}

function Row({ size, names }: { size: Size; names: string[] }): ReactNode {
  return (
    <tr className={size.error ? "refused" : undefined}>
      <th scope="row" className="figure">{size.workers}</th>
      <td className="figure">{size.batch}</td>
      <Rounded value={size.kappa} />
      {names.map((name) => (
        <Rounded key={name} value={size.values[name]} />
      ))}
    </tr>
  );
}

/** To four digits, all of them for whoever points there; of several numbers each stays on one line. */
function Rounded({ value }: { value: unknown }): ReactNode {
  const shown = number(value);
  const whole = Array.isArray(value) ? value.join(", ") : String(value ?? shown);
  return (
    <td className="figure" title={whole === shown ? undefined : whole}>
      {shown.split(/(?<=,) /).map((each, place) => (
        <span key={place}>{place > 0 && " "}<span className="unbroken">{each}</span></span>
      ))}
    </td>
  );
}

/** Each warning once, with the sizes that it is about. */
function Notes({ sizes }: { sizes: Size[] }): ReactNode {
  const about = new Map<string, number[]>();
  for (const { workers, warnings, error } of sizes) {
    for (const code of error ? [`refused, ${explain(error)}`] : warnings.map(explain)) {
      about.set(code, [...(about.get(code) ?? []), workers]);
    }
  }
  return [...about].map(([text, workers]) => (
    <p key={text} className="warning">
      With {workers.join(", ")} worker{workers.join() === "1" ? "" : "s"}: {text}.
    </p>
  ));
}
