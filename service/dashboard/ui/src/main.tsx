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

theme.begin();
presence.subscribe(() => {
  if (!presence.isAway()) void client.invalidateQueries();
});
session.subscribe(() => {
  if (!session.isOut()) void client.invalidateQueries();
});
createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
