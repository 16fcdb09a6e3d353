/** A question on top of the page; Escape and the browser's own rules for focus come with the element. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useId, useRef, type ReactNode } from "react";
import type { JobView } from "./contract";

/** What a question about a job is made of. */
export interface Asked {
  job: JobView;
  onClose: () => void;
}

/** Sends what changes the job, and shows how it is then. */
export function useChanged<T = void>(job: JobView, send: (wish: T) => Promise<JobView>, onDone?: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: send,
    onSuccess: (view) => {
      client.setQueryData(["job", job.id], view);
      onDone?.();
    },
  });
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
