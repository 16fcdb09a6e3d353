/** Where it begins. */
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import * as presence from "./presence";
import * as session from "./session";
import "./style.css";
import * as theme from "./theme";

const client = new QueryClient({
  defaultOptions: { queries: { retry: false, networkMode: "always" }, mutations: { networkMode: "always" } },
});

/** What is under way too: it may have been refused already, and without data of an earlier answer it is not repeated. */
async function askAnew(): Promise<void> {
  await client.cancelQueries();
  await client.invalidateQueries();
}

theme.begin();
presence.subscribe(() => {
  if (!presence.isAway()) void askAnew();
});
session.subscribe(() => {
  if (!session.isOut()) void askAnew();
});
createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
