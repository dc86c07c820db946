"""Shipping: brings the built car to its owner. What the topic of cars shall hear of it comes there in
one transaction: both or nothing."""

import json

import cars
import edison
import faults

connection = edison.connect()
channel = connection.channel()
channel.basic_qos(prefetch_count=10)
channel.exchange_declare("cars", "topic", durable=True)
channel.exchange_declare("shipping", "topic", durable=True)
edison.queue(channel, "shipping.cars")
channel.queue_bind("shipping.cars", "cars", "car.built")
producer = cars.producer("shipping-1")


def ship(order, cause):
    edison.work(0.05)
    if not faults.hurry():
        producer.begin_transaction()
        cars.tell(producer, order, "Loaded", cause)
        cars.tell(producer, order, "OnTheRoad", cause)
        producer.flush(10)
        if faults.find("aborts", order):
            producer.abort_transaction(10)
        else:
            producer.commit_transaction(10)
    channel.basic_publish("shipping", "car.shipped", json.dumps(order), edison.event("CarShipped", cause))


edison.consume(channel, "shipping.cars", ship)
connection.close()
