import { describe, expect, it } from "vitest";
import type { Handling, Message } from "../api/types";
import { isOpen, isOpenIn, longPlace, shortPlace, source } from "./places";

const place = {
  system: "kafka",
  destination: "car-events",
  routing_key: "car-5",
  partition: 1,
  log_offset: 57,
};

const handling = (rest: Partial<Handling>): Handling => ({
  system: "kafka",
  service: "showroom",
  instance: null,
  subscription: "showroom",
  partition: 1,
  log_offset: 57,
  consumer: "m-1",
  delivered_at: "2026-11-21T12:00:00.000000Z",
  settled_at: null,
  outcome: null,
  reason: null,
  attempt: null,
  redelivered: null,
  took_us: null,
  deliver: 0,
  settle: null,
  ...rest,
});

describe("places", () => {
  it("speaks of topics, partitions and offsets in Kafka and of exchanges in RabbitMQ", () => {
    expect(shortPlace(place)).toBe("car-events 1@57");
    expect(longPlace(place)).toBe("topic car-events, partition 1, offset 57");
    expect(shortPlace({ ...place, log_offset: null })).toBe("car-events 1");
    const rabbit = {
      system: "rabbitmq",
      destination: "orders",
      routing_key: "",
      partition: null,
      log_offset: null,
    };
    expect(shortPlace(rabbit)).toBe("orders");
    expect(longPlace({ ...rabbit, destination: "" })).toBe("the default exchange");
  });

  it("names the group, and that there is none", () => {
    expect(source(handling({}))).toBe("group showroom");
    expect(source(handling({ subscription: null }))).toBe("no group");
    expect(source(handling({ system: "rabbitmq", subscription: "factory.orders" }))).toBe("factory.orders");
  });

  it("takes nothing for open that a group came past, that nobody settles, or that came again", () => {
    expect(isOpen(handling({}))).toBe(true);
    expect(isOpen(handling({ outcome: "committed" }))).toBe(false);
    expect(isOpen(handling({ subscription: null }))).toBe(false);
    const again = handling({ delivered_at: "2026-11-21T12:00:01.000000Z" });
    const message = { handlings: [handling({}), again] } as Message;
    expect(message.handlings.map((one) => isOpenIn(message, one))).toEqual([false, true]);
  });
});
