/** A question on top of the page; Escape and the browser's own rules for focus come with the element. */
import { useEffect, useId, useRef, type ReactNode } from "react";
import type { JobView } from "./contract";

/** What a question about a job is made of. */
export interface Asked {
  job: JobView;
  onClose: () => void;
}

interface Props {
  title: string;
  onClose: () => void;
  children: ReactNode;
}

export function Dialog({ title, onClose, children }: Props): ReactNode {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => element.current?.showModal(), []);
  return (
    <dialog ref={element} aria-labelledby={id} onClose={onClose}>
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  );
}
