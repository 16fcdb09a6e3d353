/** JSON schemas as a form reads them: the service's own of a job, and each recipe's of its config. */

export interface Schema {
  $ref?: string;
  type?: string;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Schema[];
  discriminator?: { propertyName: string; mapping: Record<string, string> };
  properties?: Record<string, Schema>;
  required?: string[];
  prefixItems?: Schema[];
  items?: Schema;
  additionalProperties?: boolean | Schema;
  default?: unknown;
  description?: string;
  examples?: unknown[];
}

/** A schema, and the document that its references lead into. */
export interface Node {
  schema: Schema;
  root: unknown;
}

export type Kind =
  | "const"
  | "union"
  | "choice"
  | "flag"
  | "number"
  | "text"
  | "tuple"
  | "choices"
  | "list"
  | "group"
  | "map"
  | "any";

/** As much of `/openapi.json` as is read here. */
export interface Api {
  components: { schemas: Record<string, Schema> };
}

/** The schema of a job spec. */
export function specOf(api: Api): Node {
  return inner(api.components.schemas["JobSpec-Input"]!, api);
}

export type Data = Record<string, unknown>;

/** The part of a schema that is meant: through references, and through `X | null` to X. */
export function inner(part: Schema, root: unknown): Node {
  const { $ref, anyOf, ...own } = part;
  if ($ref) return inner({ ...lookUp($ref, root), ...own }, root);
  const options = anyOf?.filter((option) => option.type !== "null") ?? [];
  if (options.length === 1) return inner({ ...options[0], ...own }, root);
  return { schema: part, root };
}

/** Whether all values of a map are text, as those of labels are. */
export function isOfTexts({ schema: { additionalProperties } }: Node): boolean {
  return typeof additionalProperties === "object" && additionalProperties.type === "string";
}

export function isNullable(part: Schema): boolean {
  return part.anyOf?.some((option) => option.type === "null") ?? false;
}

export function kindOf({ schema }: Node): Kind {
  if (schema.discriminator) return "union";
  if ("const" in schema) return "const";
  if (schema.enum) return "choice";
  if (schema.properties) return "group";
  switch (schema.type) {
    case "boolean":
      return "flag";
    case "number":
    case "integer":
      return "number";
    case "string":
      return "text";
    case "array":
      return schema.prefixItems ? "tuple" : schema.items?.enum ? "choices" : "list";
    case "object":
      return "map";
    default:
      return "any";
  }
}

/** The schema of a union's member. */
export function member({ schema, root }: Node, name: string): Node | undefined {
  const reference = schema.discriminator?.mapping[name];
  return reference === undefined ? undefined : inner({ $ref: reference }, root);
}

/** The data without what is a default anyway. */
export function withoutDefaults(data: Data, node: Node): Data {
  const { schema, root } = kindOf(node) === "union" ? (member(node, String(data.name)) ?? node) : node;
  const stated = Object.entries(data).flatMap(([name, value]): [string, unknown][] => {
    const part = schema.properties?.[name];
    if (!part) return [[name, value]];
    const needed = schema.required?.includes(name) ?? false;
    const child = inner(part, root);
    const isPart = isData(value) && ["group", "union"].includes(kindOf(child));
    const shorter = isPart ? withoutDefaults(value, child) : value;
    const empty = isPart && Object.keys(shorter as Data).length === 0 && !isNullable(part);
    return !needed && (empty || same(value, part.default)) ? [] : [[name, shorter]];
  });
  return Object.fromEntries(stated);
}

export function isData(value: unknown): value is Data {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

export function same(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** `#/components/schemas/X` in its document. */
function lookUp(reference: string, root: unknown): Schema {
  const steps = reference.replace(/^#\//, "").split("/");
  return steps.reduce((found, step) => (found as Record<string, unknown>)[step], root) as Schema;
}
