/** Data as YAML, as a person would write it. It is read by the service, which takes YAML as it takes JSON. */

export function toYaml(value: unknown): string {
  return isObject(value) ? entries(value, "") : `${flow(value)}\n`;
}

function entries(object: Record<string, unknown>, indent: string): string {
  return Object.entries(object).map(([name, value]) => entry(`${indent}${scalar(name)}:`, value, indent)).join("");
}

function entry(head: string, value: unknown, indent: string): string {
  if (isObject(value) && Object.keys(value).length > 0) return `${head}\n${entries(value, `${indent}  `)}`;
  if (!Array.isArray(value) || !value.some(isObject)) return `${head} ${flow(value)}\n`;
  return `${head}\n${value.map((each) => `${indent}  - ${flow(each)}\n`).join("")}`;
}

/** On one line. */
function flow(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(flow).join(", ")}]`;
  if (!isObject(value)) return scalar(value);
  return `{${Object.entries(value).map(([name, each]) => `${scalar(name)}: ${flow(each)}`).join(", ")}}`;
}

const PLAIN = /^[A-Za-z_][\w ./-]*$|^\d+(\.\d+)? [a-z_]+$/;
const WORDS = /^(true|false|yes|no|on|off|y|n|null|nan|inf)$/i;

/** Text that YAML could take for something else is quoted; JSON's quotes are YAML's too. */
function scalar(value: unknown): string {
  const plain = typeof value === "string" && PLAIN.test(value) && !WORDS.test(value) && value === value.trim();
  return plain ? value : JSON.stringify(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
