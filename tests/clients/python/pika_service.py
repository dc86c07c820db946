"""A service with pika. Scenarios: ../README.md."""

import json
import os
import signal
import sys

import pika


def say(**what):
    print(json.dumps(what), flush=True)


def publish(scenario, channel):
    did = dict(published=0, confirmed=0, refused=0, returned=0)
    if scenario.get("confirm"):
        channel.confirm_delivery()
    channel.exchange_declare(scenario["exchange"], scenario["type"], durable=True)
    channel.exchange_declare("nowhere", "fanout", durable=True)
    keys = scenario.get("keys") or [""]
    plan = [(scenario["exchange"], verb) for verb in scenario["plan"]]
    plan += [("nowhere", "ack")] * scenario.get("unroutable", 0)
    say(ready=True)
    for i, (exchange, verb) in enumerate(plan):
        properties = pika.BasicProperties(
            message_id=f"m-{i}", correlation_id=f"flow-{i}", type="OrderPlaced",
            content_type="application/json", delivery_mode=2, headers=scenario.get("headers"))
        body = json.dumps({"order_id": f"order-{i}", "do": verb})
        did["published"] += 1
        try:
            channel.basic_publish(exchange, keys[i % len(keys)], body, properties,
                                  mandatory=scenario.get("mandatory", False))
            did["confirmed"] += bool(scenario.get("confirm"))
        except pika.exceptions.UnroutableError:
            # pika raises this when the message came back; the broker confirmed it all the same.
            did["returned"] += 1
            did["confirmed"] += 1
        except pika.exceptions.NackError:
            did["refused"] += 1
    return did


def consume(scenario, channel):
    did = dict(delivered=0, redelivered=0, acked=0, rejected=0, requeued=0, open=0, deaths=0)
    auto_ack = scenario.get("auto_ack", False)
    multiple = scenario.get("multiple", 0)
    recover_after = scenario.get("recover", 0)
    if scenario.get("exchange"):
        channel.exchange_declare(scenario["exchange"], scenario["type"], durable=True)
    name = scenario["queue"]
    queue = channel.queue_declare(name, durable=bool(name), exclusive=not name,
                                  arguments=scenario.get("arguments")).method.queue
    for key in scenario.get("keys") or [""]:
        if scenario.get("exchange"):
            channel.queue_bind(queue, scenario["exchange"], key)
    channel.basic_qos(prefetch_count=scenario.get("prefetch", 0))
    unacked = 0

    def on_message(channel, method, properties, body):
        nonlocal unacked, stopped
        if stopped:
            return
        tag = method.delivery_tag
        did["delivered"] += 1
        did["redelivered"] += method.redelivered
        did["deaths"] += "x-death" in (properties.headers or {})
        verb = "ack" if method.redelivered else json.loads(body)["do"]
        if (properties.headers or {}).get("x-death"):
            verb = "ack"
        if auto_ack:
            pass
        elif multiple:
            did["acked"] += 1
            unacked += 1
            if unacked == multiple or did["delivered"] == scenario["deliveries"]:
                channel.basic_ack(tag, multiple=True)
                unacked = 0
        elif verb == "ack":
            channel.basic_ack(tag)
            did["acked"] += 1
        elif verb == "nack":
            channel.basic_nack(tag, requeue=False)
            did["rejected"] += 1
        elif verb == "reject":
            channel.basic_reject(tag, requeue=False)
            did["rejected"] += 1
        elif verb == "requeue":
            channel.basic_nack(tag, requeue=True)
            did["requeued"] += 1
        elif verb == "reject_requeue":
            channel.basic_reject(tag, requeue=True)
            did["requeued"] += 1
        elif verb == "leave":
            did["open"] += 1
        if recover_after and did["delivered"] == recover_after:
            # All that is open goes back to the queue, and comes again with new tags.
            channel.basic_recover(requeue=True)
            did["requeued"] += did["open"]
            did["open"] = 0
        stopped = did["delivered"] == scenario["deliveries"]

    stopped = False
    channel.basic_consume(queue, on_message, auto_ack=auto_ack)
    say(ready=True, queue=queue)
    while not stopped:
        channel.connection.process_data_events(time_limit=1)
    return did


def main():
    scenario = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    connection = pika.BlockingConnection(pika.URLParameters(scenario["url"]))
    channel = connection.channel()
    did = {"publish": publish, "consume": consume}[scenario["role"]](scenario, channel)
    if scenario.get("end") == "crash":
        say(**did)
        os.kill(os.getpid(), signal.SIGKILL)
    connection.close()
    say(**did)


main()
