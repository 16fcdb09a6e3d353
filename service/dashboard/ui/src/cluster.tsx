/** The cluster, live: what its nodes have and use, and who waits for them. */
import type { ReactNode } from "react";
import { get } from "./api";
import type { Cluster, ClusterChanges, Node } from "./contract";
import { useLive } from "./live";
import { Failure, Table, Time, useTitle } from "./parts";
import { number } from "./wording";

const ADDRESS = "/v1/cluster";
const POLL_MS = 10_000; // where no stream comes

export function ClusterScreen(): ReactNode {
  useTitle("Cluster");
  const cluster = useLive({
    address: ADDRESS,
    nothing: NONE,
    merge,
    ask: (signal) => get<Cluster>(ADDRESS, signal),
    everyMs: POLL_MS,
  });
  return (
    <>
      <div className="head">
        <h1>Cluster</h1>
        {cluster.data && <Connection cluster={cluster.data} />}
      </div>
      <Failure error={cluster.error} />
      {cluster.data && <Picture cluster={cluster.data} />}
    </>
  );
}

const NONE: Cluster = { connected: false, seen_at: null, nodes: [], queue: [] };

function merge(cluster: Cluster, { connected, seen_at, nodes, ids, queue }: ClusterChanges): Cluster {
  const known = new Map([...cluster.nodes, ...nodes].map((node) => [node.id, node]));
  const order = ids ?? cluster.nodes.map(({ id }) => id);
  return { connected, seen_at, nodes: order.flatMap((id) => known.get(id) ?? []), queue: queue ?? cluster.queue };
}

function Connection({ cluster }: { cluster: Cluster }): ReactNode {
  if (cluster.connected) return <p className="note">{slots(cluster.nodes)}</p>;
  const seen = cluster.seen_at ? <>last seen at <Time at={cluster.seen_at} /></> : "never seen yet";
  return <p className="failure">Ray does not answer, {seen}. Jobs can be submitted, and start once it is back.</p>;
}

/** A slot is a CPU: what a worker occupies unless its job says otherwise. */
function slots(nodes: Node[]): string {
  const living = nodes.filter((node) => node.alive);
  const total = (name: "cpu" | "cpu_used" | "gpu" | "gpu_used"): number =>
    living.reduce((sum, node) => sum + node[name], 0);
  const gpus = total("gpu") ? `, ${number(total("gpu_used"))} of ${number(total("gpu"))} GPUs` : "";
  return `${number(total("cpu_used"))} of ${number(total("cpu"))} slots in use${gpus}`;
}

function Picture({ cluster }: { cluster: Cluster }): ReactNode {
  return (
    <>
      <h2>Nodes</h2>
      {cluster.nodes.length ? <Nodes nodes={cluster.nodes} /> : <p className="empty">There are no nodes.</p>}
      <h2>Queue</h2>
      {cluster.queue.length ? <Queue queue={cluster.queue} /> : <p className="empty">No job waits for room.</p>}
    </>
  );
}

function Nodes({ nodes }: { nodes: Node[] }): ReactNode {
  return (
    <Table label="Nodes">
      <thead>
        <tr>
          <th scope="col">Address</th>
          <th scope="col">State</th>
          <th scope="col">Slots (CPU)</th>
          <th scope="col">GPU</th>
          <th scope="col" className="low">Id</th>
        </tr>
      </thead>
      <tbody>
        {nodes.map((node) => (
          <tr key={node.id}>
            <th scope="row">{node.address}</th>
            <td>{state(node)}</td>
            <td>
              <Use used={node.cpu_used} total={node.cpu} label={`Slots of ${node.address}`} />
            </td>
            <td>{node.gpu ? <Use used={node.gpu_used} total={node.gpu} label={`GPUs of ${node.address}`} /> : "–"}</td>
            <td className="low">
              <code>{node.id.slice(0, 12)}</code>
            </td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

function Use({ used, total, label }: { used: number; total: number; label: string }): ReactNode {
  return (
    <span className="bar">
      <meter value={used} max={total} aria-label={label} />
      <span>{`${number(used)} of ${number(total)}`}</span>
    </span>
  );
}

function state(node: Node): ReactNode {
  if (!node.alive) return <span className="phase failed">gone</span>;
  if (!node.draining) return <span className="phase running">alive</span>;
  return <span className="phase recovering">to leave{node.drains_at && <> by <Time at={node.drains_at} /></>}</span>;
}

function Queue({ queue }: { queue: Cluster["queue"] }): ReactNode {
  return (
    <Table label="Queue">
      <thead>
        <tr>
          <th scope="col">Job</th>
          <th scope="col" className="figure">Priority</th>
          <th scope="col">Why it waits</th>
        </tr>
      </thead>
      <tbody>
        {queue.map((job) => (
          <tr key={job.id}>
            <th scope="row">
              <a href={`#/jobs/${job.id}`}>{job.name}</a>
            </th>
            <td className="figure">{job.priority}</td>
            <td className="prose">{job.message}</td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}
