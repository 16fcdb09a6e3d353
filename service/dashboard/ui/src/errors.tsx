/** What is wrong in a form, told at its fields: which they are is said by JSON pointers. */
import { createContext, useContext, type ReactNode } from "react";
import type { FieldError } from "./contract";

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
export function useMarks(pointer: string, whole = pointer) {
  const own = useWrong(pointer, true).length > 0;
  const wrong = useWrong(whole, false).length > 0 || own;
  return { id: idOf(pointer), "aria-invalid": wrong, "aria-describedby": wrong ? `${idOf(whole)}:wrong` : undefined };
}

function useWrong(pointer: string, below: boolean): FieldError[] {
  return useContext(Errors).filter((error) => error.pointer === pointer || (below && error.pointer.startsWith(`${pointer}/`)));
}
