/** Names and values, a line each: labels, and settings that no schema describes. */
import { useState, type ReactNode } from "react";
import { Refused } from "./api";
import type { FieldError } from "./contract";
import type { Marks } from "./errors";
import { isData, type Data } from "./schema";

const LOOK = "Write name=value, a line each.";

/** What was typed and is no pairs yet: the service gets it as text, which it refuses where it wants an object. */
export class Unread {
  constructor(
    readonly text: string,
    readonly reason: string,
  ) {}

  toJSON(): string {
    return this.text;
  }
}

interface Props {
  marks: Marks;
  value: unknown;
  texts: boolean; // else numbers, lists and the like are read as JSON
  onChange: (value: unknown) => void;
}

export function Pairs({ marks, value, texts, onChange }: Props): ReactNode {
  const [typed, setTyped] = useState(() => printed(value, texts));
  return (
    <textarea
      {...marks}
      rows={2}
      placeholder="name=value, a line each"
      value={typed}
      onChange={(event) => {
        setTyped(event.target.value);
        onChange(pairsIn(event.target.value, texts ? String : read));
      }}
    />
  );
}

/** The answer to data that a form made; what is wrong with text that the form could not read is told in its words. */
export async function answered<T>(answer: Promise<T>, data: unknown): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw error instanceof Refused ? error.reworded(unreadIn(data)) : error;
  }
}

function unreadIn(data: unknown, pointer = ""): FieldError[] {
  if (data instanceof Unread) return [{ pointer, message: data.reason }];
  if (!isData(data)) return [];
  return Object.entries(data).flatMap(([name, value]) => unreadIn(value, `${pointer}/${name}`));
}

function printed(value: unknown, texts: boolean): string {
  if (value instanceof Unread) return value.text;
  if (!isData(value)) return "";
  return Object.entries(value).map(([name, each]) => `${name}=${texts ? String(each) : written(each)}`).join("\n");
}

function pairsIn(text: string, parse: (text: string) => unknown): Data | Unread | undefined {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (lines.length === 0) return undefined;
  const pairs: Data = {};
  for (const line of lines) {
    const [name, value] = halves(line);
    if (value === undefined) return new Unread(text, `“${line}” has no =. ${LOOK}`);
    if (name === "") return new Unread(text, `“${line}” has no name. ${LOOK}`);
    if (Object.hasOwn(pairs, name)) return new Unread(text, `“${name}” is there twice.`);
    pairs[name] = parse(value);
  }
  return pairs;
}

/** What stands before the first `=`, and after it. */
function halves(line: string): [string, string | undefined] {
  const at = line.indexOf("=");
  return at < 0 ? [line, undefined] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
}

/** JSON where it is some, else text. */
function read(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** So that `read` gives it back: text without quotes, unless it would be read as something else. */
function written(value: unknown): string {
  return typeof value === "string" && read(value) === value ? value : JSON.stringify(value);
}
