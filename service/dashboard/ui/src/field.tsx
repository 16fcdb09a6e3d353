/** A form made from a JSON schema. What is typed goes to the service as it is; its errors come back to their fields. */
import { createContext, useContext, useState, type ReactNode } from "react";
import type { FieldError } from "./contract";
import { Pairs } from "./pairs";
import { inner, isData, isNullable, isOfTexts, kindOf, member, type Data, type Node, type Schema } from "./schema";

/** What the service found wrong in the whole form. */
export const Errors = createContext<FieldError[]>([]);

/** The id of the field at a JSON pointer. */
export function idOf(pointer: string): string {
  return `field${pointer}`;
}

/** Move to the first field of the page at which something is wrong; false: none of them is on it. */
export function leadTo(errors: FieldError[]): boolean {
  const fields = errors.flatMap(({ pointer }) => fieldAt(pointer) ?? []);
  const [first] = fields.sort((one, other) => (one.compareDocumentPosition(other) & window.Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1));
  first?.closest("details:not([open])")?.setAttribute("open", "");
  first?.focus();
  return first !== undefined;
}

/** The field itself, or one of its parts, or what it is a part of. */
function fieldAt(pointer: string): HTMLElement | null {
  if (pointer === "") return null;
  const id = idOf(pointer);
  const part = document.querySelector<HTMLElement>(`[id^="${CSS.escape(id)}/"]`);
  return document.getElementById(id) ?? part ?? fieldAt(pointer.slice(0, pointer.lastIndexOf("/")));
}

interface Place<T = unknown> {
  node: Node;
  name: string;
  pointer: string;
  value: T;
  onChange: (value: unknown) => void; // undefined: as if nothing was said
}

/** All fields of an object, or those named. */
export function Fields({ node, names, pointer, value, onChange }: Omit<Place<Data>, "name"> & { names?: string[] }): ReactNode {
  const properties = node.schema.properties ?? {};
  return (names ?? Object.keys(properties)).map((name) => {
    const part = properties[name];
    return (
      part && (
        <Field
          key={name}
          part={part}
          node={inner(part, node.root)}
          name={name}
          pointer={`${pointer}/${name}`}
          value={value[name]}
          onChange={(changed) => onChange(having(value, name, changed))}
        />
      )
    );
  });
}

function having(data: Data, name: string, value: unknown): Data {
  const { [name]: _, ...others } = data;
  return value === undefined ? others : name in data ? { ...data, [name]: value } : { ...others, [name]: value };
}

function Field({ part, ...place }: Place & { part: Schema }): ReactNode {
  switch (kindOf(place.node)) {
    case "const":
      return null;
    case "union":
      return <Union {...place} value={dataOf(place.value)} />;
    case "group":
      return isNullable(part) ? <OptionalGroup {...place} /> : <Group {...place} value={dataOf(place.value)} />;
    case "tuple":
      return <Tuple {...place} />;
    case "choices":
      return <Choices {...place} />;
    case "list":
      return <List {...place} />;
    default:
      return <Labelled {...place} mayBeNone={isNullable(part) && (place.node.schema.default ?? null) !== null} />;
  }
}

function dataOf(value: unknown): Data {
  return isData(value) ? value : {};
}

// -- objects -----------------------------------------------------------------------------------------------------------

function Group(place: Place<Data>): ReactNode {
  return (
    <Framed place={place} legend={worded(place.name)}>
      <Fields {...place} />
    </Framed>
  );
}

function OptionalGroup(place: Place): ReactNode {
  const on = isData(place.value);
  return (
    <Framed
      place={place}
      legend={
        <label className="check">
          <input type="checkbox" checked={on} onChange={() => place.onChange(on ? undefined : {})} />
          {worded(place.name)}
        </label>
      }
    >
      {isData(place.value) && <Fields {...place} value={place.value} />}
    </Framed>
  );
}

/** An object that is one of several kinds: the kind, and its fields. */
function Union(place: Place<Data>): ReactNode {
  const { discriminator } = place.node.schema;
  const tag = discriminator!.propertyName;
  const chosen = String(place.value[tag] ?? "");
  const kind = member(place.node, chosen);
  const id = idOf(`${place.pointer}/${tag}`);
  return (
    <Framed place={place} legend={worded(place.name)}>
      <div className="field">
        <label htmlFor={id}>{worded(place.name)}</label>
        <select id={id} value={chosen} onChange={(event) => place.onChange(kept(place.value, member(place.node, event.target.value), tag, event.target.value))}>
          {Object.keys(discriminator!.mapping).map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </div>
      {kind && <Fields {...place} node={kind} />}
    </Framed>
  );
}

/** What the other kind has too stays as it was typed. */
function kept(value: Data, kind: Node | undefined, tag: string, name: string): Data {
  const known = Object.keys(kind?.schema.properties ?? {});
  return { ...Object.fromEntries(Object.entries(value).filter(([key]) => known.includes(key))), [tag]: name };
}

function Framed({ place, legend, children }: { place: Place; legend: ReactNode; children: ReactNode }): ReactNode {
  return (
    <fieldset className="group" id={idOf(place.pointer)} tabIndex={-1}>
      <legend>{legend}</legend>
      <Help text={place.node.schema.description} />
      <Wrong pointer={place.pointer} />
      <div className="grid">{children}</div>
    </fieldset>
  );
}

// -- arrays ------------------------------------------------------------------------------------------------------------

/** A fixed number of values, such as a smallest and a largest. */
function Tuple({ node, name, pointer, value, onChange }: Place): ReactNode {
  const { prefixItems = [], default: fallback, description } = node.schema;
  const values = Array.isArray(value) ? value : [];
  const defaults = Array.isArray(fallback) ? fallback : [];
  const change = (place: number, changed: unknown): void => {
    const all = prefixItems.map((_, at) => (at === place ? changed : (values[at] ?? defaults[at])));
    onChange(all.every((each) => each === undefined) ? undefined : all);
  };
  return (
    <div className="field" role="group" aria-label={worded(name)}>
      <span className="label">{worded(name)}</span>
      <span className="pair">
        {prefixItems.map((part, place) => (
          <Typed
            key={place}
            node={inner(part, node.root)}
            pointer={`${pointer}/${place}`}
            whole={pointer}
            label={`${worded(name)}, ${place + 1} of ${prefixItems.length}`}
            value={values[place]}
            fallback={defaults[place]}
            onChange={(changed) => change(place, changed)}
          />
        ))}
      </span>
      <Help text={description} />
      <Wrong pointer={pointer} below />
    </div>
  );
}

/** Any of a few names. */
function Choices({ node, name, pointer, value, onChange }: Place): ReactNode {
  const chosen = Array.isArray(value) ? value : [];
  const toggled = (each: unknown): unknown[] =>
    chosen.includes(each) ? chosen.filter((other) => other !== each) : [...chosen, each];
  return (
    <div className="field whole" role="group" aria-label={worded(name)}>
      <span className="label">{worded(name)}</span>
      <span className="checks">
        {(node.schema.items?.enum ?? []).map((each) => (
          <label key={String(each)} className="check">
            <input type="checkbox" checked={chosen.includes(each)} onChange={() => onChange(toggled(each))} />
            {String(each)}
          </label>
        ))}
      </span>
      <Help text={node.schema.description} />
      <Wrong pointer={pointer} below />
    </div>
  );
}

function List({ node, name, pointer, value, onChange }: Place): ReactNode {
  const items = Array.isArray(value) ? (value as unknown[]) : [];
  const part = node.schema.items ?? {};
  const child = inner(part, node.root);
  const fresh = kindOf(child) === "group" ? {} : "";
  return (
    <div className="field whole" role="group" aria-label={worded(name)}>
      <span className="label">{worded(name)}</span>
      {items.map((item, place) => (
        <div className="item" key={place}>
          <Field
            part={part}
            node={child}
            name={`${name} ${place + 1}`}
            pointer={`${pointer}/${place}`}
            value={item}
            onChange={(changed) => onChange(items.with(place, changed ?? fresh))}
          />
          <button type="button" onClick={() => onChange(items.length > 1 ? items.toSpliced(place, 1) : undefined)}>
            Remove
          </button>
        </div>
      ))}
      <button type="button" onClick={() => onChange([...items, fresh])}>
        Add
      </button>
      <Help text={node.schema.description} />
      <Wrong pointer={pointer} />
    </div>
  );
}

// -- single values -----------------------------------------------------------------------------------------------------

/** With `mayBeNone` an empty field is the default, so that none is said apart. */
function Labelled({ mayBeNone, ...place }: Place & { mayBeNone: boolean }): ReactNode {
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
function Typed({ node, pointer, whole, label, value, fallback, onChange }: TypedProps): ReactNode {
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

// -- around a field ----------------------------------------------------------------------------------------------------

function worded(name: string): string {
  return name.replaceAll("_", " ");
}

/** The first sentence; the others on demand. What is null to the service is something else to a person: `none`. */
function Help({ text, none = "empty" }: { text: string | undefined; none?: string }): ReactNode {
  if (!text) return null;
  const [first, ...rest] = text.replace(/\bnull\b/g, none).split(/(?<=\.) (?=[A-Za-z])/);
  if (rest.length === 0) return <span className="help">{first}</span>;
  return (
    <details className="help">
      <summary>{first}</summary>
      {rest.join(" ")}
    </details>
  );
}

/** What is wrong there, and with `below` also in its parts. */
export function Wrong({ pointer, below = false }: { pointer: string; below?: boolean }): ReactNode {
  const errors = useWrong(pointer, below);
  if (errors.length === 0) return null;
  return (
    <span className="error" id={`${idOf(pointer)}:wrong`}>
      {errors.map(({ message }) => message).join(" ")}
    </span>
  );
}

export type Marks = ReturnType<typeof useMarks>;

/** How the input at a pointer is found, and whether what stands there, or in the whole that it is a part of, is wrong. */
function useMarks(pointer: string, whole = pointer) {
  const own = useWrong(pointer, true).length > 0;
  const wrong = useWrong(whole, false).length > 0 || own;
  return { id: idOf(pointer), "aria-invalid": wrong, "aria-describedby": wrong ? `${idOf(whole)}:wrong` : undefined };
}

function useWrong(pointer: string, below: boolean): FieldError[] {
  return useContext(Errors).filter((error) => error.pointer === pointer || (below && error.pointer.startsWith(`${pointer}/`)));
}
