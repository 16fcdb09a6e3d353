/** What the service says, as far as the dashboard reads it: `api_schemas/views.py`, `events.py` and `previews.py`. */

import type { Schema } from "./schema";

export type Phase =
  | "queued"
  | "starting"
  | "running"
  | "resizing"
  | "recovering"
  | "pausing"
  | "paused"
  | "cancelling"
  | "cancelled"
  | "succeeded"
  | "failed";

export const PHASES: Phase[] = [
  "queued",
  "starting",
  "running",
  "resizing",
  "recovering",
  "pausing",
  "paused",
  "cancelling",
  "cancelled",
  "succeeded",
  "failed",
];

export function hasEnded(phase: Phase): boolean {
  return phase === "cancelled" || phase === "succeeded" || phase === "failed";
}

export type Values = Record<string, unknown>;
export type Scores = Record<string, number | null>;
export type Pair = [number, number];
/** Samples seen, and a value; null: it was not finite. */
export type Point = [number, number | null];

export interface Page<T> {
  items: T[];
  next: string | null;
}

export interface Status {
  phase: Phase;
  since: string;
  code: string;
  message: string;
  traceback: string | null;
  log_tail: string[];
}

/** Whether it trains on fewer workers than it may have, since the cluster has no room for more. */
export function fallsShort({ code }: Status): boolean {
  return code === "short_of_slots";
}

export interface Progress {
  samples: number;
  total_samples: number | null;
  epoch: number;
  eta_s: number | null;
}

interface AnyJob {
  id: string;
  name: string;
  status: Status;
  workers: number;
  kappa: number | null;
  progress: Progress;
  created_at: string;
  updated_at: string;
  revision: number;
}

export interface JobRow extends AnyJob {
  recipe: string;
  priority: number;
  labels: Record<string, string>;
}

export interface JobChanges {
  items: JobRow[];
  ids: string[] | null;
  next: string | null;
}

/** The parts of a spec that the dashboard itself reads; the rest it takes as it comes. */
export interface Spec extends Record<string, unknown> {
  recipe: { name: string; config: Values };
  optimizer: { name: string };
  batch: { base: number; per_worker: number };
  elasticity: { workers: Pair; kappa: Pair; mode: string };
  scaling: { second_moment: string };
  checkpoint: { every: string | null };
  priority: number;
  engine: string;
  labels: Record<string, string>;
}

export interface ResizeRequest {
  workers: number | null; // null: as many as elasticity allows again
  at_samples: number | null;
}

export interface PlannedResize {
  workers: number;
  at_samples: number;
}

export interface JobView extends AnyJob {
  spec: Spec;
  target_workers: number | null;
  pending_resizes: PlannedResize[];
  batch: number | null;
  generation: number;
  values: Values;
  evaluation: { samples: number; target: Scores; ema: Scores | null } | null;
  noise_scale: number | null;
  artifacts: Record<string, string>;
}

/** What a change of size does, or would do. */
export interface Change {
  workers: Pair;
  kappa: Pair;
  batch: Pair;
  before: Values;
  after: Values;
  state_factors: Record<string, number>;
  warnings: string[];
}

export interface Resize extends Change {
  id: number;
  at: string;
  cause: string;
  reason: string;
  generation: number;
  samples: number;
  decide_s: number;
  pause_s: number;
  steps_lost: number;
  samples_lost: number;
}

export interface Size {
  workers: number;
  batch: number;
  kappa: number;
  values: Values;
  warnings: string[];
  error: string | null;
}

export interface JobPreview {
  spec: Spec;
  sizes: Size[];
  warnings: string[];
}

export interface Curves {
  series: Record<string, Point[]>;
}

export interface Checkpoint {
  name: string;
  samples: number;
  bytes: number;
  saved_at: string;
  files: string[];
}

export interface Artifact {
  name: string;
  bytes: number;
  /** That downloads it. */
  url: string;
  /** Where it lies in the storage. */
  location: string;
}

export interface Node {
  id: string;
  address: string;
  alive: boolean;
  cpu: number;
  gpu: number;
  cpu_used: number;
  gpu_used: number;
  draining: boolean;
  drains_at: string | null;
}

export interface Cluster {
  connected: boolean;
  seen_at: string | null;
  nodes: Node[];
  queue: { id: string; name: string; priority: number; message: string }[];
}

export interface ClusterChanges {
  connected: boolean;
  seen_at: string | null;
  nodes: Node[];
  ids: string[] | null;
  queue: Cluster["queue"] | null;
}

export interface Recipe {
  name: string;
  summary: string;
  config_schema: Schema;
  needs_ema: boolean;
}

/** Whether the service asks for tokens, and whose this browser has. */
export interface Session {
  auth: "none" | "token";
  token: { name: string; scope: string } | null;
}

export interface FieldError {
  pointer: string;
  message: string;
}

interface Told<T extends string> {
  type: T;
  at: string;
  incarnation: number;
  sequence: number;
}

export type Event =
  | (Told<"submitted"> & { name: string })
  | (Told<"phase"> & { phase: Phase; code: string; message: string })
  | (Told<"resize_requested"> & ResizeRequest)
  | (Told<"updated"> & { changes: Record<string, [unknown, unknown]> })
  | (Told<"joining"> & { workers: number })
  | (Told<"started"> & { workers: number; kappa: number; batch: number; samples: number })
  | (Told<"resizing"> & { workers: Pair; cause: string; reason: string })
  | (Told<"resized"> & Omit<Resize, "id" | "at">)
  | (Told<"rank_lost"> & { rank: number; reason: string })
  | (Told<"evaluated"> & { samples: number; target: Scores; ema: Scores | null })
  | (Told<"checkpoint_saved"> & { samples: number; name: string; bytes: number })
  | (Told<"checkpoint_failed"> & { samples: number; message: string })
  | (Told<"rollback"> & { to_samples: number; samples_lost: number | null })
  | (Told<"exported"> & { artifacts: Record<string, string> })
  | (Told<"finished"> & { outcome: string; code: string; message: string })
  | (Told<"warning"> & { code: string; message: string });

export interface ToldSize {
  samples: number;
  workers: number;
  batch: number;
}

/** The size that a job has from this event on, where it tells one. */
export function sizeOf(event: Event): ToldSize[] {
  if (event.type === "started") return [event];
  return event.type === "resized" ? [{ samples: event.samples, workers: event.workers[1], batch: event.batch[1] }] : [];
}
