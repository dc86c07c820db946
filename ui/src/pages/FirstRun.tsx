// Nothing has been recorded yet: how to place the first sidecar, with a list that ticks by itself.

import { useAgents } from "../api/client";
import type { Coverage } from "../api/types";
import { CopyButton } from "../components/bits";

const RUN = `flowtap-agent --service shop \\
  --tap 'amqp 127.0.0.1:5673 amqp://rabbit:5672' \\
  --store file:///var/lib/flowtap`;

export function FirstRun({ coverage }: { coverage: Coverage | undefined }) {
  const { data } = useAgents();
  const agents = data?.agents ?? [];
  const sidecar = agents.length > 0 || (coverage?.total ?? 0) > 0;
  const recorded = agents.some((agent) => (agent.last_seq ?? 0) > 0);
  const steps: [boolean, string, string][] = [
    [
      sidecar,
      "A sidecar reports",
      sidecar ? `${agents.map((agent) => agent.agent).join(", ")}` : "waiting for the first one",
    ],
    [
      recorded,
      "It sees traffic",
      recorded ? "records have arrived" : "waiting for a publish, a deliver or a settle",
    ],
    [false, "Messages form a flow", "messages that share a transaction id, or follow causation ids"],
  ];
  return (
    <div className="notice first-run">
      <h2>No flow yet</h2>
      <p>
        Flowtap sees a service through a sidecar that stands between it and its broker. Start one, and point
        the service at the sidecar's address instead of the broker's: that one address is all that changes.
      </p>
      <div className="snippet">
        <pre className="mono">{RUN}</pre>
        <CopyButton text={() => RUN}>Copy</CopyButton>
      </div>
      <p>
        For Kafka: <code>--tap 'kafka 127.0.0.1:19092 kafka://kafka:9092'</code>; one sidecar can have both.
      </p>
      <ol className="steps">
        {steps.map(([done, what, how]) => (
          <li key={what} className={done ? "done" : ""}>
            <span className="tick" aria-hidden="true">
              {done ? "✓" : ""}
            </span>
            <div>
              <b>{what}</b>
              <span className="hidden">{done ? " (done)" : " (not yet)"}</span>
              <div className="muted">{how}</div>
            </div>
          </li>
        ))}
      </ol>
    </div>
  );
}
