"""What the Python services of Edison Cars share: the envelope of an event, and the second chance."""

import json
import os
import random
import signal
import sys
import time
import uuid

import pika

import faults

SERVICE = os.environ["SERVICE"]
ATTEMPTS = 3


def connect():
    parameters = pika.URLParameters(os.environ["AMQP_URL"])
    parameters.client_properties = {"connection_name": SERVICE}
    return pika.BlockingConnection(parameters)


def event(type, cause):
    """Properties of an event that belongs to the flow of `cause` and was caused by it."""
    headers = None
    if os.environ.get("IDS") != "none":
        origin = cause.headers or {}
        headers = {
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": str(uuid.uuid4()),
            "cloudEvents:source": SERVICE,
            "cloudEvents:type": type,
            "cloudEvents:correlationid": origin.get("cloudEvents:correlationid"),
            "cloudEvents:causationid": origin.get("cloudEvents:id"),
            "command": "PlaceOrder",
        }
    return pika.BasicProperties(
        type=type, content_type="application/json", delivery_mode=2, headers=headers)


def queue(channel, name):
    """The queue that a service works from. What it rejects goes to SERVICE.dead and stays there;
    what it wants to try again waits two seconds in SERVICE.retry and comes back."""
    def back_to(queue):
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}

    channel.queue_declare(f"{SERVICE}.dead", durable=True)
    channel.queue_declare(f"{SERVICE}.retry", durable=True,
                          arguments=back_to(name) | {"x-message-ttl": 2000})
    channel.queue_declare(name, durable=True, arguments=back_to(f"{SERVICE}.dead"))


def failed(channel, tag, properties, body, error):
    """It failed: once more later, or never again."""
    headers = properties.headers or {}
    attempt = headers.get("attempt", 1)
    print(f"attempt {attempt} of {ATTEMPTS} failed: {error}", file=sys.stderr)
    if attempt >= ATTEMPTS:
        channel.basic_reject(tag, requeue=False)
        return
    properties.headers = headers | {"attempt": attempt + 1}
    channel.basic_publish("", f"{SERVICE}.retry", body, properties)
    channel.basic_ack(tag)


def consume(channel, queue, handle):
    """Hands each order to `handle`, until the process is asked to end."""
    running = True

    def stop(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print("ready", flush=True)
    for method, properties, body in channel.consume(queue, inactivity_timeout=0.2):
        if not running:
            break
        if method is None:
            continue
        try:
            order = json.loads(body)
            if faults.strike(channel, method.delivery_tag, order):
                continue
            handle(order, properties)
            channel.basic_ack(method.delivery_tag)
        except (ValueError, KeyError) as error:
            failed(channel, method.delivery_tag, properties, body, error)
    channel.cancel()


def work(seconds):
    """The time that real work takes (the first load of the demo does without)."""
    if not faults.hurry():
        time.sleep(seconds * random.uniform(0.5, 1.5))
