"""A service with aiokafka. Scenarios: ../README.md."""

import asyncio
import base64
import json
import os
import signal
import ssl
import sys
import time

from aiokafka import (AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition)
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError

scenario = json.loads(sys.argv[1])
did = {}


def say(what):
    print(json.dumps(what), flush=True)


def count(what, by=1):
    did[what] = did.get(what, 0) + by


async def pause():
    await asyncio.sleep(scenario.get("every_ms", 0) / 1000)


class Tokens(AbstractTokenProvider):
    """Unsecured tokens, as brokers take them in tests."""

    async def token(self):
        now = int(time.time())
        security = scenario["security"]
        claims = {"sub": security["user"], "iat": now, "exp": now + security.get("token_seconds", 3600)}
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
                 for part in ({"alg": "none"}, claims)]
        return ".".join(parts) + "."


def common():
    config = {"bootstrap_servers": scenario["bootstrap"],
              "client_id": scenario.get("client_id", "aiokafka")}
    security = scenario.get("security") or {}
    mechanism, ca = security.get("mechanism"), security.get("ca")
    if mechanism or ca:
        config["security_protocol"] = ("SASL_" if mechanism else "") + ("SSL" if ca else "PLAINTEXT")
    if ca:
        config["ssl_context"] = ssl.create_default_context(cafile=ca)
        if "cert" in security:
            config["ssl_context"].load_cert_chain(security["cert"], security["key"])
    if mechanism:
        config["sasl_mechanism"] = mechanism
        if mechanism == "OAUTHBEARER":
            config["sasl_oauth_token_provider"] = Tokens()
        else:
            config.update(sasl_plain_username=security["user"], sasl_plain_password=security["password"])
    return config


def producer_of(of, transaction):
    acks = of.get("acks", "all")
    compression = of.get("compression", "none")
    return AIOKafkaProducer(
        **common(), acks=acks if acks == "all" else int(acks), linger_ms=of.get("linger_ms", 5),
        compression_type=None if compression == "none" else compression,
        enable_idempotence=bool(of.get("idempotent") or transaction), transactional_id=transaction,
        **scenario.get("config", {}))


async def end(producer, number, abort):
    if abort:
        await producer.abort_transaction()
    else:
        await producer.commit_transaction()
    outcome = "aborted" if abort else "committed"
    count(outcome)
    say({"transaction": number, "outcome": outcome})


def value(number):
    text = f'{{"order_id":"order-{number}","n":{number}'
    size = scenario.get("bytes", 0)
    if size > len(text) + 10:
        text += f',"pad":"{"x" * (size - len(text) - 10)}"'
    return (text + "}").encode()


async def produce(stopped):
    did.update(published=0, confirmed=0, refused=0, committed=0, aborted=0)
    transaction = scenario.get("transaction")
    producer = producer_of(scenario, transaction and transaction["id"])
    await producer.start()
    await producer.partitions_for(scenario["topic"])
    say({"ready": True})
    size = transaction["size"] if transaction else 1 << 60
    keys = scenario.get("keys") or [None]
    headers = [(name, None if content is None else content.encode())
               for name, content in scenario.get("headers") or []]
    open_sends = []

    def told(number):
        def tell(future):
            error = future.exception()
            if error is None:
                count("confirmed")
                # No metadata with acks=0.
                where = future.result()
                say({"sent": number, "partition": where and where.partition,
                     "offset": where.offset if where and where.offset >= 0 else None})
            else:
                count("refused")
                say({"sent": number, "error": type(error).__name__})
        return tell

    for i in range(scenario["count"]):
        if stopped.is_set():
            break
        if transaction and i % size == 0:
            await producer.begin_transaction()
        key = keys[i % len(keys)]
        sent = await producer.send(scenario["topic"], value(i), key=key and key.encode(),
                                   partition=scenario.get("partition"), headers=headers)
        sent.add_done_callback(told(i))
        open_sends.append(sent)
        count("published")
        if transaction and (i % size == size - 1 or i == scenario["count"] - 1):
            await asyncio.wait(open_sends)
            open_sends.clear()
            await end(producer, i // size, i // size in transaction.get("abort", []))
        await pause()
    if open_sends:
        await asyncio.wait(open_sends)
    await producer.stop()


class Rebalanced(ConsumerRebalanceListener):
    def __init__(self, position):
        self.position = position
        self.before_revoke = None

    async def on_partitions_revoked(self, revoked):
        if revoked:
            if self.before_revoke:
                await self.before_revoke()
            self.position.clear()
            say({"revoked": [[each.topic, each.partition] for each in revoked]})

    async def on_partitions_assigned(self, assigned):
        say({"assigned": [[each.topic, each.partition] for each in assigned]})
        say({"ready": True})


async def consume(stopped):
    did.update(received=0, committed=0, aborted=0)
    commit = scenario.get("commit", "auto")
    group = scenario.get("group")
    to = scenario.get("to")
    producer = producer_of(to, to["transaction"]) if to else None
    if producer:
        await producer.start()
    extra = {"group_instance_id": scenario["instance"]} if scenario.get("instance") else {}
    consumer = AIOKafkaConsumer(
        **common(), group_id=group, auto_offset_reset="earliest", auto_commit_interval_ms=200,
        enable_auto_commit=bool(group) and commit == "auto", heartbeat_interval_ms=500,
        session_timeout_ms=scenario.get("session_ms", 6000), **extra,
        isolation_level="read_committed" if scenario.get("read_committed") else "read_uncommitted",
        **scenario.get("config", {}))
    position = {}

    def said(offsets):
        for each, offset in offsets.items():
            say({"committed": [each.topic, each.partition, offset]})

    async def commit_all():
        if position:
            offsets = dict(position)
            try:
                await consumer.commit(offsets)
                said(offsets)
                position.clear()
            except KafkaError as error:
                # With the next batch, if the partition is still its own then.
                say({"failed": repr(error)})

    listener = Rebalanced(position)
    if group:
        if commit == "batch":
            listener.before_revoke = commit_all
        consumer.subscribe(scenario["topics"], listener=listener)
        await consumer.start()
    else:
        await consumer.start()
        everything = []
        for topic in scenario["topics"]:
            await consumer._client.add_topic(topic)
            everything += [TopicPartition(topic, each) for each in consumer.partitions_for_topic(topic)]
        consumer.assign(everything)
        await consumer.seek_to_beginning(*everything)
        say({"ready": True})
    records = scenario.get("records", 0)
    batches = 0
    while not stopped.is_set() and (not records or did["received"] < records):
        polled = await consumer.getmany(timeout_ms=100, max_records=scenario.get("max_batch"))
        if not polled:
            if group and commit == "batch":
                await commit_all()
            continue
        if producer:
            await producer.begin_transaction()
        for at, messages in polled.items():
            for message in messages:
                key = message.key
                say({"topic": at.topic, "partition": at.partition, "offset": message.offset,
                     "key": None if key is None else key.decode(errors="replace"),
                     "size": None if message.value is None else len(message.value),
                     "timestamp": message.timestamp,
                     "headers": [[name, None if content is None else content.decode(errors="replace")]
                                 for name, content in message.headers]})
                count("received")
                position[at] = message.offset + 1
                if producer:
                    await producer.send(to["topic"], message.value, key=key, headers=message.headers)
                await pause()
        if producer:
            offsets = dict(position)
            await producer.send_offsets_to_transaction(offsets, group)
            abort = batches in to.get("abort", [])
            await end(producer, batches, abort)
            if abort:
                # Once more, from where it was.
                for at, messages in polled.items():
                    consumer.seek(at, messages[0].offset)
            else:
                said(offsets)
            position.clear()
            batches += 1
        elif group and commit == "batch":
            await commit_all()
    if scenario.get("end") != "crash":
        await consumer.stop()
        if producer:
            await producer.stop()


async def main():
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await (produce if scenario["role"] == "produce" else consume)(stopped)
    say(did)
    if scenario.get("end") == "crash":
        os._exit(0)


asyncio.run(main())
