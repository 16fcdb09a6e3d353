/** A form made from a JSON schema. What is typed goes to the service as it is; its errors come back to their fields. */
import type { ReactNode } from "react";
import { idOf, Wrong } from "./errors";
import { Labelled, Typed, type Place } from "./input";
import { Help, worded } from "./label";
import { inner, isData, isNullable, kindOf, member, type Data, type Node, type Schema } from "./schema";

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
