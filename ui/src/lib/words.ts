// The closed list of states and outcomes, each as a word and a tone. Colour is only ever the third signal
// after glyph and word.
import type { Handling, Message, State } from "../api/types";
import { isKafka, settles } from "./places";

export const STATES: readonly State[] = ["broken", "late", "suspect", "unknown", "running", "healthy"];

export type Tone = "ok" | "broken" | "late" | "waiting" | "unknown" | "suspect";

export const toneOfState: Record<State, Tone> = {
  healthy: "ok",
  running: "waiting",
  late: "late",
  suspect: "suspect",
  broken: "broken",
  unknown: "unknown",
};

export const meaningOfState: Record<State, string> = {
  healthy: "everything that was sent was handled",
  running: "still moving, or it may come back",
  late: "waiting longer than it should, and everybody who could have seen it is seen",
  suspect: "something expected did not come; too little evidence to accuse anybody",
  broken: "a service or the broker ended it, and nothing undid that",
  unknown: "Flowtap was blind at the place where it went",
};

/** What an outcome of a publish or a handling means for the reader. null: not ended yet. */
export function toneOfOutcome(outcome: string | null | undefined): Tone {
  switch (outcome) {
    case "acked":
    case "committed":
    case "auto":
    case "confirmed":
      return "ok";
    case "rejected":
    case "refused":
    case "unroutable":
    case "aborted":
      return "broken";
    case "requeued":
    case "abandoned":
      return "late";
    case "unknown":
      return "unknown";
    default:
      return "waiting";
  }
}

/**
 * The tone of a failure follows the verdict on its message: a refusal that something undid later, or a
 * message that nobody ever listened for, must not look like an accusation.
 */
export function toneIn(message: Message, outcome: string | null): Tone {
  const tone = toneOfOutcome(outcome);
  const acquitted = message.state !== null && message.state !== "broken";
  if (tone !== "broken" || !acquitted) return tone;
  return outcome === "unroutable" ? "unknown" : "late";
}

export function outcomeWord(handling: Handling): string {
  if (handling.outcome === "auto") return "received it (auto-ack)";
  if (handling.outcome) return handling.outcome;
  if (handling.settled_at) return "settled";
  if (!settles(handling)) return "read it";
  return isKafka(handling) ? "has not committed past it" : "still handling";
}

/** What a reader steps through with N and P. */
export function isProblem(message: Message): boolean {
  if (message.state && message.state !== "healthy" && message.state !== "running") return true;
  // The verdict knows what undid a failure; where it judged the message well, its word counts.
  if (message.state) return false;
  if (toneOfOutcome(message.publish_outcome) === "broken") return true;
  return message.handlings.some((handling) => toneOfOutcome(handling.outcome) === "broken");
}

export const plural = (n: number, one: string, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** 12 403, with a thin space that does not break. */
export const count = (n: number) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");

export const kindWord: Record<string, string> = {
  publish: "published",
  confirm: "confirmed",
  return: "returned",
  deliver: "delivered",
  settle: "settled",
  transaction: "transaction",
  link: "linked",
  session: "session",
  topology: "topology",
  position: "position",
  gap: "gap",
};

const COMMON_KEY = /customer|client|user|account|tenant|session|device/i;

/** The keys, those first that name one flow rather than whom it is for. */
export const byTelling = <K extends { name: string }>(keys: readonly K[]): K[] =>
  keys.toSorted((a, b) => Number(COMMON_KEY.test(a.name)) - Number(COMMON_KEY.test(b.name)));
