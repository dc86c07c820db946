// Asks the API and caches what it said. A failed refetch keeps the last good answer: the hooks give both.
import { keepPreviousData, QueryClient, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import createClient from "openapi-fetch";
import { ms } from "../lib/time";
import type { ApiErrorBody, FlowDetail, paths, State } from "./types";

const client = createClient<paths>();

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

interface Result<T> {
  data?: T;
  error?: ApiErrorBody | string;
  response: Response;
}

async function take<T>(asked: Promise<Result<T>>): Promise<T> {
  let result: Result<T>;
  try {
    result = await asked;
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ApiError(
      0,
      "unreachable",
      "Flowtap's query service does not answer. Is `flowtap serve` running?",
    );
  }
  const { data, error, response } = result;
  if (data !== undefined && response.ok) return data;
  if (error && typeof error === "object" && "error" in error)
    throw new ApiError(response.status, error.error.code, error.error.message);
  throw new ApiError(response.status, "http", `The query service answered with status ${response.status}.`);
}

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      retry: (failures, error) =>
        failures < 1 && !(error instanceof ApiError && error.status >= 400 && error.status < 500),
      retryDelay: 400,
    },
  },
});

export interface FlowFilter {
  state?: State[];
  service?: string;
  type?: string;
  text?: string;
  from?: string;
  to?: string;
}

const PAGE = 50;

export const useFlows = (filter: FlowFilter) =>
  useInfiniteQuery({
    queryKey: ["flows", filter],
    queryFn: ({ pageParam, signal }) =>
      take(
        client.GET("/api/v1/flows", {
          params: { query: { ...filter, limit: PAGE, ...(pageParam ? { cursor: pageParam } : {}) } },
          signal,
        }),
      ),
    initialPageParam: "",
    getNextPageParam: (page) => page.next ?? undefined,
    placeholderData: keepPreviousData,
    refetchOnWindowFocus: false,
  });

/** The newest flows, asked again and again; the list itself does not move under the reader. */
export const useNewest = (filter: FlowFilter, enabled: boolean) =>
  useQuery({
    queryKey: ["newest", filter],
    queryFn: ({ signal }) =>
      take(client.GET("/api/v1/flows", { params: { query: { ...filter, limit: PAGE } }, signal })),
    refetchInterval: 5_000,
    enabled,
  });

const QUIET_AFTER = 10 * 60_000;

/** A flow that may still move is asked again; a large one less often. */
function again(detail: FlowDetail | undefined): number | false {
  if (!detail) return 5_000;
  const quiet = Date.now() - ms(detail.summary.last_at) > QUIET_AFTER;
  if (quiet && detail.summary.state === "healthy") return false;
  return quiet || detail.records.length > 2_000 ? 20_000 : 5_000;
}

export const useFlow = (flow: string) =>
  useQuery({
    queryKey: ["flow", flow],
    queryFn: ({ signal }) => take(client.GET("/api/v1/flows/{flow}", { params: { path: { flow } }, signal })),
    refetchInterval: (query) => again(query.state.data),
  });

export const useWhy = (id: string) =>
  useQuery({
    queryKey: ["why", id],
    queryFn: ({ signal }) => take(client.GET("/api/v1/why", { params: { query: { id } }, signal })),
    enabled: id !== "",
    refetchInterval: (query) => (query.state.data?.found === "nothing" ? 5_000 : false),
  });

export const useAgents = () =>
  useQuery({
    queryKey: ["agents"],
    queryFn: ({ signal }) => take(client.GET("/api/v1/agents", { signal })),
    refetchInterval: 5_000,
  });
