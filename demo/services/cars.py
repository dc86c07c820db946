"""What the services share that write to the topic of cars, or read it. It holds what happens to each
car, keyed by the car, so that all of one car is in one partition and in order."""

import json
import os
import signal
import sys
import time
import types
import uuid

import confluent_kafka as kafka
from confluent_kafka.admin import AdminClient, NewTopic

import faults

SERVICE = os.environ["SERVICE"]
TOPIC, DEAD = "car-events", "car-events.DLT"
BROKERS = {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "client.id": SERVICE}


def make_topics():
    """Whoever comes first makes them."""
    admin = AdminClient(BROKERS)
    made = admin.create_topics([NewTopic(TOPIC, 3, 1), NewTopic(DEAD, 1, 1)])
    for future in made.values():
        try:
            future.result(30)
        except kafka.KafkaException as error:
            if error.args[0].code() != kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def producer(transactional_id=None):
    make_topics()
    settings = BROKERS | {"enable.idempotence": True, "linger.ms": 2}
    if transactional_id is None:
        return kafka.Producer(settings)
    made = kafka.Producer(settings | {"transactional.id": transactional_id})
    made.init_transactions(30)
    return made


def tell(to, order, state, cause):
    """A car has come so far. The event belongs to the flow of `cause` and was caused by it."""
    origin, headers = cause.headers or {}, None
    if os.environ.get("IDS") != "none":
        headers = [(name, value.encode()) for name, value in {
            "ce_specversion": "1.0",
            "ce_id": str(uuid.uuid4()),
            "ce_source": SERVICE,
            "ce_type": state,
            "ce_correlationid": origin.get("cloudEvents:correlationid"),
            "ce_causationid": origin.get("cloudEvents:id"),
            "command": "PlaceOrder",
        }.items() if value]
    car = order["order_id"].replace("order", "car")
    body = {"car_id": car, "order_id": order["order_id"], "model": order["model"], "state": state}
    to.produce(TOPIC, json.dumps(body), car, headers=headers, on_delivery=refused)


def refused(error, _record):
    if error:
        print(f"refused: {error}", file=sys.stderr)


def cause(record):
    """A record as the cause of a message on RabbitMQ."""
    headers = {name: value.decode() for name, value in record.headers() or []}
    return types.SimpleNamespace(headers={
        "cloudEvents:id": headers.get("ce_id"), "cloudEvents:correlationid": headers.get("ce_correlationid")})


def read(group, handle, meanwhile=lambda: None):
    """Hands each car's news to `handle` in a consumer group, until the process is asked to end. What
    fails is read again, until it goes well."""
    running = True

    def stop(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    make_topics()
    consumer = kafka.Consumer(BROKERS | {
        "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000})
    consumer.subscribe([TOPIC], on_assign=lambda *_: print("ready", flush=True))
    dead = None
    while running:
        record = consumer.poll(0.2)
        meanwhile()
        if record is None:
            continue
        if record.error():
            print(record.error(), file=sys.stderr)
            continue
        car = json.loads(record.value())
        try:
            struck = faults.strike_record(car, lambda: running and (meanwhile(), time.sleep(0.1)))
            if struck == "rejects":
                dead = dead or kafka.Producer(BROKERS)
                dead.produce(DEAD, record.value(), record.key(), headers=record.headers())
                dead.flush(10)
            elif not struck:
                handle(car, record)
            if running:
                consumer.commit(record, asynchronous=False)
        except (ValueError, KeyError) as error:
            print(f"{record.key()} failed: {error}", file=sys.stderr)
            time.sleep(0.5)
            consumer.seek(kafka.TopicPartition(record.topic(), record.partition(), record.offset()))
    consumer.close()
