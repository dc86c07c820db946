"""Stock: reserves the parts of an order. It has none for a hovercraft."""

import json

import edison

connection = edison.connect()
channel = connection.channel()
channel.basic_qos(prefetch_count=10)
channel.exchange_declare("orders", "fanout", durable=True)
channel.exchange_declare("stock", "topic", durable=True)
edison.queue(channel, "stock.orders")
channel.queue_bind("stock.orders", "orders")


def reserve(order, cause):
    edison.work(0.02)
    if order["model"] == "hovercraft":
        key, event = "stock.missing", "StockMissing"
    else:
        key, event = "stock.reserved", "StockReserved"
    channel.basic_publish("stock", key, json.dumps(order), edison.event(event, cause))


edison.consume(channel, "stock.orders", reserve)
connection.close()
