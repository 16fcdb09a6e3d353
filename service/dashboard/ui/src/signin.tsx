/** Signing in where the service asks for tokens, and out again. */
import { useMutation, useQuery } from "@tanstack/react-query";
import { useEffect, useId, useRef, useState, type ReactNode } from "react";
import { get, open, Refused, remove } from "./api";
import type { Session } from "./contract";
import { Failure } from "./parts";
import { begun, useSignedOut } from "./session";

const SESSION = "/v1/session";
const SENDABLE = /^[!-~]+$/;

/** On top of all else, so that what was being typed is still there afterwards. */
export function SignIn(): ReactNode {
  return useSignedOut() && <Question />;
}

/** Nothing can be done without an answer, so Escape does not close it for long. */
function Question(): ReactNode {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  const [token, setToken] = useState("");
  const signIn = useMutation({ mutationFn: enter, onSuccess: begun });
  useEffect(() => element.current?.showModal(), []);
  return (
    <dialog ref={element} aria-labelledby={id} onClose={() => element.current?.showModal()}>
      <h2 id={id}>Sign in</h2>
      <p>
        This service asks for a token. Who runs it makes one with <code>python -m service token create</code>.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          signIn.mutate(token.trim());
        }}
      >
        <label className="field">
          <span className="label">Token</span>
          <input
            type="password"
            autoComplete="current-password"
            spellCheck={false}
            required
            value={token}
            aria-invalid={signIn.isError}
            onChange={(event) => setToken(event.target.value)}
          />
        </label>
        <Failure error={signIn.error} />
        <p className="choice">
          <button className="main" disabled={signIn.isPending}>
            Sign in
          </button>
        </p>
      </form>
    </dialog>
  );
}

async function enter(token: string): Promise<void> {
  const wrong = "This token is not valid: it may be mistyped, expired or revoked.";
  if (!SENDABLE.test(token)) throw new Error(wrong);
  try {
    await open(SESSION, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  } catch (error) {
    throw error instanceof Refused && error.status === 401 ? new Error(wrong) : error;
  }
}

function useSession(): Session | undefined {
  const { data } = useQuery({
    queryKey: ["session"],
    queryFn: ({ signal }) => get<Session>(SESSION, signal),
    staleTime: Infinity,
  });
  return data;
}

/** Whether what changes something, or computes on somebody's behalf, is not refused: a token to read is for looking. */
export function useMayChange(): boolean {
  return useSession()?.token?.scope !== "read";
}

/** Only where somebody is signed in. The page begins anew, so that nothing of what was seen stays. */
export function SignOut(): ReactNode {
  const session = useSession();
  const signOut = useMutation({ mutationFn: () => remove(SESSION), onSuccess: () => location.reload() });
  if (!session?.token) return null;
  const { name, scope } = session.token;
  return (
    <button className="quiet" title={`Signed in as ${name} (${scope})`} onClick={() => signOut.mutate()}>
      Sign out
    </button>
  );
}
