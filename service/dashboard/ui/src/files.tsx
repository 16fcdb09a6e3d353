/** What a job left in its storage, to download: checkpoints and exported weights. */
import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { get } from "./api";
import type { Artifact, Checkpoint, Page } from "./contract";
import { Failure, Table, Time } from "./parts";
import { bytes, count } from "./wording";

export function FilesPart({ id, ended }: { id: string; ended: boolean }): ReactNode {
  const checkpoints = useFiles<Checkpoint>(id, "checkpoints");
  const artifacts = useFiles<Artifact>(id, "artifacts");
  return (
    <>
      <h2>Exported</h2>
      <Failure error={artifacts.error} />
      {artifacts.data?.length === 0 && (
        <p className="empty">{ended ? "Nothing: the weights are exported once the budget is used up." : "Nothing yet: the weights and their EMA are exported at the end."}</p>
      )}
      {artifacts.data && artifacts.data.length > 0 && <Artifacts rows={artifacts.data} />}
      <h2>Checkpoints</h2>
      <Failure error={checkpoints.error} />
      {checkpoints.data?.length === 0 && (
        <p className="empty">
          {ended ? "None were kept" : "None yet"}: <code>checkpoint.every</code> says how often there is one; a job that uses up its budget always leaves one.
        </p>
      )}
      {checkpoints.data && checkpoints.data.length > 0 && <Checkpoints id={id} rows={checkpoints.data} />}
    </>
  );
}

export function useFiles<T>(id: string, kind: string): { data: T[] | undefined; error: Error | null } {
  return useQuery({
    queryKey: ["files", id, kind],
    queryFn: async ({ signal }) => (await get<Page<T>>(`/v1/jobs/${id}/${kind}`, signal)).items,
  });
}

function Artifacts({ rows }: { rows: Artifact[] }): ReactNode {
  return (
    <Table label="Exported files">
      <thead>
        <tr>
          <th scope="col">File</th>
          <th scope="col" className="figure">Size</th>
          <th scope="col" className="low">Where it lies</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.name}>
            <th scope="row">
              <a href={row.url} download>{row.name}</a>
            </th>
            <td className="figure">{bytes(row.bytes)}</td>
            <td className="low"><code>{row.location}</code></td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

function Checkpoints({ id, rows }: { id: string; rows: Checkpoint[] }): ReactNode {
  return (
    <Table label="Checkpoints">
      <thead>
        <tr>
          <th scope="col">Checkpoint</th>
          <th scope="col" className="figure low">Sample</th>
          <th scope="col" className="figure low">Size</th>
          <th scope="col" className="low">Saved</th>
          <th scope="col">Files</th>
        </tr>
      </thead>
      <tbody>
        {rows.toReversed().map((row) => (
          <tr key={row.name}>
            <th scope="row">
              {row.name}
              <span className="why narrow"><Time at={row.saved_at} />, {bytes(row.bytes)}</span>
            </th>
            <td className="figure low">{count(row.samples)}</td>
            <td className="figure low">{bytes(row.bytes)}</td>
            <td className="low"><Time at={row.saved_at} /></td>
            <td className="links">
              {row.files.map((file) => (
                <a key={file} href={`/v1/jobs/${id}/checkpoints/${row.name}/${file}`} title={file} download>
                  {shortly(file)}
                </a>
              ))}
            </td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

/** Which tensors are in a file, without the hash that keeps its name apart from others. */
function shortly(file: string): string {
  return file.replace(/-[0-9a-f]{16}\.safetensors$/, "");
}
