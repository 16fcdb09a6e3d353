/** Single values of a form: text, numbers, choices, flags; and pairs, which are typed as one. */
import { useState, type ReactNode } from "react";
import { idOf, useMarks, Wrong, type Marks } from "./errors";
import { Help, worded } from "./label";
import { Pairs } from "./pairs";
import { isOfTexts, kindOf, type Node } from "./schema";

/** A part of what is typed, and what its schema says of it. */
export interface Place<T = unknown> {
  node: Node;
  name: string;
  pointer: string;
  value: T;
  onChange: (value: unknown) => void; // undefined: as if nothing was said
}

/** With `mayBeNone` an empty field is the default, so that none is said apart. */
export function Labelled({ mayBeNone, ...place }: Place & { mayBeNone: boolean }): ReactNode {
  const { node, name, pointer, value, onChange } = place;
  const none = mayBeNone && value === null;
  return (
    <div className="field">
      <label htmlFor={idOf(pointer)}>{worded(name)}</label>
      {!none && <Single {...place} />}
      {mayBeNone && (
        <label className="check">
          <input id={none ? idOf(pointer) : undefined} type="checkbox" checked={none} onChange={() => onChange(none ? undefined : null)} />
          none
        </label>
      )}
      <Help text={node.schema.description} none={mayBeNone ? "none" : "empty"} />
      <Wrong pointer={pointer} below />
    </div>
  );
}

function Single({ node, pointer, value, onChange }: Place): ReactNode {
  const { schema } = node;
  const marks = useMarks(pointer);
  switch (kindOf(node)) {
    case "flag":
      return <input {...marks} type="checkbox" checked={Boolean(value ?? schema.default)} onChange={(event) => onChange(event.target.checked)} />;
    case "choice":
      return <Choice node={node} marks={marks} value={value} onChange={onChange} />;
    case "map":
      return <Pairs marks={marks} value={value} texts={isOfTexts(node)} onChange={onChange} />;
    default:
      return <Typed node={node} pointer={pointer} value={value} fallback={schema.default} onChange={onChange} />;
  }
}

function Choice({ node: { schema }, marks, value, onChange }: Omit<Place, "name" | "pointer"> & { marks: Marks }): ReactNode {
  const unset = schema.default === undefined || schema.default === null;
  return (
    <select
      {...marks}
      value={String(value ?? schema.default ?? "")}
      onChange={(event) => onChange(schema.enum!.find((each) => String(each) === event.target.value))}
    >
      {unset && <option value="">–</option>}
      {schema.enum!.map((each) => (
        <option key={String(each)}>{String(each)}</option>
      ))}
    </select>
  );
}

interface TypedProps {
  node: Node;
  pointer: string;
  whole?: string; // the pointer at which its errors are told
  label?: string;
  value: unknown;
  fallback: unknown;
  onChange: (value: unknown) => void;
}

/** Text that may stand for a number. Half a number (`1e-`) is kept as text, which the service refuses with a reason. */
export function Typed({ node, pointer, whole, label, value, fallback, onChange }: TypedProps): ReactNode {
  const numeric = kindOf(node) === "number";
  const parse = numeric ? numberIn : textIn;
  const [typed, setTyped] = useState(printed(value));
  return (
    <input
      {...useMarks(pointer, whole)}
      aria-label={label}
      inputMode={numeric ? "decimal" : "text"}
      autoComplete="off"
      spellCheck={false}
      value={parse(typed) === value ? typed : printed(value)}
      placeholder={printed(fallback ?? node.schema.examples?.[0])}
      onChange={(event) => {
        setTyped(event.target.value);
        onChange(parse(event.target.value));
      }}
    />
  );
}

function printed(value: unknown): string {
  return value === undefined || value === null ? "" : String(value);
}

function textIn(text: string): string | undefined {
  return text === "" ? undefined : text;
}

/** Whole numbers that JavaScript cannot hold stay text; the service reads it. */
function numberIn(text: string): number | string | undefined {
  if (text.trim() === "") return undefined;
  const value = Number(text);
  return Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value)) ? value : text;
}
