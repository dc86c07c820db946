// Where a message was put and where it came out, in the words of its broker: RabbitMQ has exchanges, keys
// and queues, Kafka topics, partitions, offsets and groups.
import type { Handling, HistoryRecord, Message } from "../api/types";

export const isKafka = (it: { system?: unknown } | HistoryRecord) => it.system === "kafka";

export const systemNames: Record<string, string> = { rabbitmq: "RabbitMQ", kafka: "Kafka" };

type Placed = Pick<Message, "system" | "destination" | "routing_key" | "partition" | "log_offset">;

/** "orders"; in Kafka "car-events 1@57": topic, partition and offset. Short, for lists. */
export function shortPlace(it: Placed): string {
  const name = it.destination || it.routing_key || "?";
  if (!isKafka(it) || it.partition === null) return name;
  return `${name} ${it.partition}${it.log_offset === null ? "" : `@${it.log_offset}`}`;
}

/** "topic car-events, partition 1, offset 57"; of RabbitMQ the exchange. */
export function longPlace(it: Placed): string {
  if (!isKafka(it)) return it.destination || "the default exchange";
  const parts = [`topic ${it.destination ?? "?"}`];
  if (it.partition !== null) parts.push(`partition ${it.partition}`);
  if (it.log_offset !== null) parts.push(`offset ${it.log_offset}`);
  return parts.join(", ");
}

/** "factory.orders"; "group showroom"; a Kafka consumer may be in no group. */
export function source(handling: Handling): string {
  if (!isKafka(handling)) return handling.subscription ?? "";
  return handling.subscription === null ? "no group" : `group ${handling.subscription}`;
}

/** Nothing will say how it ended: a reader without a group only reads. */
export const settles = (handling: Handling) => !(isKafka(handling) && handling.subscription === null);

/** Nobody was seen to end it, and nothing says that it ended. */
export const isOpen = (handling: Handling) =>
  handling.settled_at === null &&
  settles(handling) &&
  (handling.outcome === null || handling.outcome === "unknown");

/** The same, of a message: a record that was handed to its group once more is open there, not here. */
export function isOpenIn(message: Message, handling: Handling): boolean {
  return isOpen(handling) && nextRead(message, handling) === undefined;
}

/** When a record of Kafka was handed to the same group once more. */
export function nextRead(message: Message, handling: Handling): Handling | undefined {
  if (!isKafka(handling)) return undefined;
  const later = message.handlings.filter(
    (other) =>
      isKafka(other) &&
      other.subscription === handling.subscription &&
      other.delivered_at > handling.delivered_at,
  );
  return later.sort((a, b) => (a.delivered_at < b.delivered_at ? -1 : 1))[0];
}

/** Names of columns that read better in Kafka's words. */
export const kafkaColumn: Record<string, string> = {
  destination: "topic",
  subscription: "group",
  routing_key: "key",
  log_offset: "offset",
  consumer: "member",
};

const number = (value: unknown): number | null => (typeof value === "number" ? value : null);
const text = (value: unknown): string | null => (typeof value === "string" ? value : null);

/** A record's place, as a message has it. */
export const placeOf = (record: HistoryRecord): Placed => ({
  system: text(record.system),
  destination: text(record.destination),
  routing_key: text(record.routing_key),
  partition: number(record.partition),
  log_offset: number(record.log_offset),
});
