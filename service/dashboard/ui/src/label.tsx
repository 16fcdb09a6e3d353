/** What a field is called, and what it means. */
import type { ReactNode } from "react";

export function worded(name: string): string {
  return name.replaceAll("_", " ");
}

/** The first sentence; the others on demand. What is null to the service is something else to a person: `none`. */
export function Help({ text, none = "empty" }: { text: string | undefined; none?: string }): ReactNode {
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
