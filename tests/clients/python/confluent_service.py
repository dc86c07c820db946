"""A service with confluent-kafka (librdkafka). Scenarios: ../README.md."""

import json
import os
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

scenario = json.loads(sys.argv[1])
did = {}
stopped = False


def say(what):
    print(json.dumps(what), flush=True)


def count(what, by=1):
    did[what] = did.get(what, 0) + by


def stop(*_):
    global stopped
    stopped = True


def pause():
    time.sleep(scenario.get("every_ms", 0) / 1000)


def common():
    config = {"bootstrap.servers": scenario["bootstrap"],
              "client.id": scenario.get("client_id", "confluent-kafka")}
    security = scenario.get("security") or {}
    mechanism, ca = security.get("mechanism"), security.get("ca")
    if mechanism or ca:
        config["security.protocol"] = ("SASL_" if mechanism else "") + ("SSL" if ca else "PLAINTEXT")
    if ca:
        config["ssl.ca.location"] = ca
        if "cert" in security:
            config.update({"ssl.certificate.location": security["cert"],
                           "ssl.key.location": security["key"]})
    if mechanism:
        config["sasl.mechanism"] = mechanism
        if mechanism == "OAUTHBEARER":
            config.update({
                "enable.sasl.oauthbearer.unsecure.jwt": True,
                "sasl.oauthbearer.config": f"principal={security['user']} "
                                           f"lifeSeconds={security.get('token_seconds', 3600)}"})
        else:
            config.update({"sasl.username": security["user"], "sasl.password": security["password"]})
    return config


def producer_of(of, transaction):
    config = common() | {"acks": of.get("acks", "all"), "linger.ms": of.get("linger_ms", 5),
                         "compression.type": of.get("compression", "none"),
                         "enable.idempotence": bool(of.get("idempotent") or transaction)}
    if transaction:
        config["transactional.id"] = transaction
    producer = Producer(config | scenario.get("config", {}))
    if transaction:
        producer.init_transactions(60)
    return producer


def end(producer, number, abort):
    if abort:
        producer.abort_transaction(60)
    else:
        producer.commit_transaction(60)
    outcome = "aborted" if abort else "committed"
    count(outcome)
    say({"transaction": number, "outcome": outcome})


def value(number):
    text = f'{{"order_id":"order-{number}","n":{number}'
    size = scenario.get("bytes", 0)
    if size > len(text) + 10:
        text += f',"pad":"{"x" * (size - len(text) - 10)}"'
    return (text + "}").encode()


def content(number):
    return None if scenario.get("tombstones") else value(number)


def produce():
    did.update(published=0, confirmed=0, refused=0, committed=0, aborted=0)
    transaction = scenario.get("transaction")
    producer = producer_of(scenario, transaction and transaction["id"])
    producer.list_topics(scenario["topic"], 60)
    say({"ready": True})
    size = transaction["size"] if transaction else 1 << 60

    def told(number):
        def tell(error, message):
            if error is None:
                count("confirmed")
                offset = message.offset()
                say({"sent": number, "partition": message.partition(),
                     "offset": offset if offset is not None and offset >= 0 else None})
            else:
                count("refused")
                say({"sent": number, "error": error.name()})
        return tell

    keys = scenario.get("keys") or [None]
    where = {} if scenario.get("partition") is None else {"partition": scenario["partition"]}
    headers = [(name, None if content is None else content.encode())
               for name, content in scenario.get("headers") or []]
    for i in range(scenario["count"]):
        if stopped:
            break
        if transaction and i % size == 0:
            producer.begin_transaction()
        while True:
            try:
                producer.produce(scenario["topic"], content(i), keys[i % len(keys)], headers=headers,
                                 on_delivery=told(i), **where)
                break
            except BufferError:
                producer.poll(0.1)
        count("published")
        producer.poll(0)
        if transaction and (i % size == size - 1 or i == scenario["count"] - 1):
            producer.flush(60)
            end(producer, i // size, i // size in transaction.get("abort", []))
        pause()
    producer.flush(60)


def consume():
    did.update(received=0, committed=0, aborted=0)
    commit = scenario.get("commit", "auto")
    group = scenario.get("group")
    config = common() | {
        "group.id": group or "nobody", "auto.offset.reset": "earliest", "enable.partition.eof": False,
        "enable.auto.commit": bool(group) and commit == "auto", "auto.commit.interval.ms": 200,
        "isolation.level": "read_committed" if scenario.get("read_committed") else "read_uncommitted"}
    if group and scenario.get("protocol") == "consumer":
        config["group.protocol"] = "consumer"
    elif group:
        config.update({"session.timeout.ms": scenario.get("session_ms", 6000),
                       "heartbeat.interval.ms": 500})
    if scenario.get("instance"):
        config["group.instance.id"] = scenario["instance"]
    to = scenario.get("to")
    producer = producer_of(to, to["transaction"]) if to else None
    consumer = Consumer(config | scenario.get("config", {}))
    position = {}

    def said(offsets):
        for each in offsets:
            say({"committed": [each.topic, each.partition, each.offset]})

    def commit_all():
        if position:
            try:
                said(consumer.commit(offsets=[TopicPartition(topic, partition, offset) for
                                              (topic, partition), offset in position.items()],
                                     asynchronous=False))
                position.clear()
            except KafkaException as error:
                # With the next batch, if the partition is still its own then.
                say({"failed": str(error)})

    def names(partitions):
        return [[each.topic, each.partition] for each in partitions]

    def assigned(_, partitions):
        say({"assigned": names(partitions)})
        say({"ready": True})

    def revoked(_, partitions):
        if commit == "batch":
            commit_all()
        for each in partitions:
            position.pop((each.topic, each.partition), None)
        say({"revoked": names(partitions)})

    def lost(_, partitions):
        for each in partitions:
            position.pop((each.topic, each.partition), None)
        say({"lost": names(partitions)})

    if group:
        consumer.subscribe(scenario["topics"], on_assign=assigned, on_revoke=revoked, on_lost=lost)
    else:
        everything = [TopicPartition(topic, partition, 0) for topic in scenario["topics"]
                      for partition in consumer.list_topics(topic, 60).topics[topic].partitions]
        consumer.assign(everything)
        say({"ready": True})
    records = scenario.get("records", 0)
    batches = 0
    while not stopped and (not records or did["received"] < records):
        batch = consumer.consume(scenario.get("max_batch", 500), 0.1)
        if not batch:
            if group and commit == "batch":
                commit_all()
            continue
        begun = {}
        if producer:
            producer.begin_transaction()
        for message in batch:
            if message.error():
                say({"failed": str(message.error())})
                continue
            key, headers = message.key(), message.headers() or []
            say({"topic": message.topic(), "partition": message.partition(), "offset": message.offset(),
                 "key": None if key is None else key.decode(errors="replace"),
                 "size": None if message.value() is None else len(message.value()),
                 "timestamp": message.timestamp()[1],
                 "headers": [[name, None if content is None else content.decode(errors="replace")]
                             for name, content in headers]})
            count("received")
            at = (message.topic(), message.partition())
            begun.setdefault(at, message.offset())
            position[at] = message.offset() + 1
            if producer:
                producer.produce(to["topic"], message.value(), key, headers=headers)
            pause()
        if producer:
            offsets = [TopicPartition(topic, partition, offset)
                       for (topic, partition), offset in position.items()]
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 60)
            abort = batches in to.get("abort", [])
            producer.flush(60)
            end(producer, batches, abort)
            if abort:
                # Once more, from where it was.
                for (topic, partition), offset in begun.items():
                    consumer.seek(TopicPartition(topic, partition, offset))
            else:
                said(offsets)
            position.clear()
            batches += 1
        elif group and commit == "batch":
            commit_all()
    if scenario.get("end") != "crash":
        consumer.close()


signal.signal(signal.SIGTERM, stop)
if scenario["role"] == "produce":
    produce()
else:
    consume()
say(did)
if scenario.get("end") == "crash":
    os._exit(0)
