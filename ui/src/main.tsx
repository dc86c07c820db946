import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { queryClient } from "./api/client";
import { router } from "./router";
import { SettingsProvider } from "./settings";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/flows.css";
import "./styles/flow.css";
import "./styles/agents.css";

const place = document.getElementById("root");
if (place)
  createRoot(place).render(
    <StrictMode>
      <QueryClientProvider client={queryClient}>
        <SettingsProvider>
          <RouterProvider router={router} />
        </SettingsProvider>
      </QueryClientProvider>
    </StrictMode>,
  );
