"""Notifications: tells the customers what happens to their orders. It listens to everything and
acknowledges nothing: what it was handed counts as done. SIGHUP: it reads again what to listen to."""

import collections
import json
import os
import signal
import time

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
queue = channel.queue_declare("", exclusive=True).method.queue
told = collections.Counter()
running, stale = True, True


def listen():
    with open(os.environ["LISTEN_TO"]) as file:  # {"orders": "fanout", "stock": "topic", ...}
        for exchange, kind in json.load(file).items():
            channel.exchange_declare(exchange, kind, durable=True)
            channel.queue_bind(queue, exchange, "#")


def tell(_channel, _method, properties, _body):
    told[properties.type] += 1


def stop(*_):
    global running
    running = False


def reload(*_):
    global stale
    stale = True


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGHUP, reload)
channel.basic_consume(queue, tell, auto_ack=True)
report = time.monotonic()
while running:
    if stale:
        stale = False
        listen()
        print("ready", flush=True)
    connection.process_data_events(time_limit=0.2)
    if time.monotonic() - report > 1:
        report = time.monotonic()
        print("told", json.dumps(told), flush=True)
connection.close()
