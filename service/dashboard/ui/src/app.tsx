/** The frame around every screen, and which screen is shown. */
import { useEffect, useRef, type ReactNode } from "react";
import { ClusterScreen } from "./cluster";
import { CreateScreen } from "./create";
import { JobScreen } from "./job";
import { JobsScreen } from "./jobs";
import { useAway } from "./presence";
import { usePlace, type Place } from "./route";
import { SignIn, SignOut, useMayChange } from "./signin";
import { toggle, useTheme } from "./theme";

const SCREENS = [
  { name: "jobs", label: "Jobs" },
  { name: "new", label: "New job", changes: true },
  { name: "cluster", label: "Cluster" },
];

export function App(): ReactNode {
  const place = usePlace();
  const main = useRef<HTMLElement>(null);
  const where = place.path.slice(0, 2).join("/");
  const arrived = useRef(where);
  useEffect(() => {
    if (arrived.current !== where) main.current?.focus();
    arrived.current = where;
  }, [where]);
  return (
    <>
      <Header current={place.path[0] ?? "jobs"} onSkip={() => main.current?.focus()} />
      <Banner />
      <main ref={main} tabIndex={-1}>
        <Screen place={place} />
      </main>
      <SignIn />
    </>
  );
}

function Screen({ place }: { place: Place }): ReactNode {
  const [screen = "jobs", id, ...rest] = place.path;
  if (screen === "jobs" && id) return <JobScreen key={id} id={id} part={rest.join("/") || "curves"} />;
  if (screen === "jobs") return <JobsScreen query={place.query} />;
  if (screen === "new") return <CreateScreen key={place.query.get("from")} from={place.query.get("from")} />;
  if (screen === "cluster") return <ClusterScreen />;
  return (
    <p className="empty">
      There is nothing at this address. <a href="#/jobs">See the jobs</a>.
    </p>
  );
}

function Header({ current, onSkip }: { current: string; onSkip: () => void }): ReactNode {
  const mayChange = useMayChange();
  return (
    <header className="top">
      <button className="skip" onClick={onSkip}>
        Skip to the content
      </button>
      <a className="brand" href="#/jobs">
        emascale
      </a>
      <nav aria-label="Screens">
        {SCREENS.filter(({ changes }) => mayChange || !changes).map(({ name, label }) => (
          <a key={name} href={`#/${name}`} aria-current={name === current ? "page" : undefined}>
            {label}
          </a>
        ))}
      </nav>
      <SignOut />
      <ThemeButton />
    </header>
  );
}

function ThemeButton(): ReactNode {
  const other = useTheme() === "dark" ? "light" : "dark";
  return (
    <button className="quiet theme" onClick={toggle} aria-label={`Use the ${other} theme`} title={`Use the ${other} theme`}>
      {other === "dark" ? "☾" : "☀"}
    </button>
  );
}

/** Always there, so that screen readers hear what appears in it. */
function Banner(): ReactNode {
  const away = useAway();
  return (
    <div role="status" className={away ? "banner" : undefined}>
      {away && "The service does not answer. What you see is the last that it said; this page goes on by itself once it is back."}
    </div>
  );
}
