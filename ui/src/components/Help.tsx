import { useEffect, useRef } from "react";
import type { State } from "../api/types";
import { meaningOfState, STATES } from "../lib/words";
import { useSettings } from "../settings";
import { StateMark, SystemMark } from "./Glyph";

const keys: [string, string][] = [
  ["/", "search"],
  ["J K", "next, previous row"],
  ["N P", "next, previous problem"],
  ["Enter", "open the row"],
  ["Esc", "close, go back"],
  ["← →", "fold, unfold a row"],
  ["F", "fit the selection, then all"],
  ["+ − 0", "zoom in, out, reset"],
  ["L", "fold idle time or show it in full"],
  ["G", "timeline or graph"],
  ["?", "this help"],
];

export function Help({ close }: { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const { letters, setLetters } = useSettings();
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} className="help" onClose={close} aria-labelledby="help-title">
      <header>
        <h2 id="help-title">Keys and words</h2>
        <button type="button" className="button" onClick={close}>
          Close
        </button>
      </header>
      <div className="columns">
        <section>
          <h3>Keys</h3>
          <dl className="keys">
            {keys.map(([key, what]) => (
              <div key={key}>
                <dt>
                  {key.split(" ").map((one) => (
                    <kbd key={one}>{one}</kbd>
                  ))}
                </dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
          <label className="check">
            <input type="checkbox" checked={letters} onChange={(event) => setLetters(event.target.checked)} />
            Single letters are commands
          </label>
        </section>
        <section>
          <h3>States</h3>
          <dl className="states">
            {STATES.map((state: State) => (
              <div key={state}>
                <dt>
                  <StateMark state={state} />
                </dt>
                <dd>{meaningOfState[state]}</dd>
              </div>
            ))}
          </dl>
          <h3>In the timeline</h3>
          <ul className="legend">
            <li>
              <i className="sample diamond" /> published
            </li>
            <li>
              <i className="sample waiting" /> waiting in a queue or topic
            </li>
            <li>
              <i className="sample working" /> being handled
            </li>
            <li>✓ acked or committed, ✕ rejected, ↺ requeued, ● auto-ack</li>
            <li>
              <SystemMark system="rabbitmq" /> RabbitMQ: an exchange, a queue
            </li>
            <li>
              <SystemMark system="kafka" /> Kafka: a topic with partition@offset, a group
            </li>
          </ul>
        </section>
      </div>
    </dialog>
  );
}
