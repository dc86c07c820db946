"""The delivery desk: once a car is finished it offers the customer a day for the delivery. It reads of
it on Kafka, and says so on RabbitMQ."""

import json

import cars
import edison

connection = edison.connect()
channel = connection.channel()
channel.confirm_delivery()
channel.exchange_declare("calls", "topic", durable=True)


def offer(car, record):
    if car["state"] == "Finished":
        event = edison.event("DeliveryOffered", cars.cause(record))
        channel.basic_publish("calls", "delivery.offered", json.dumps(car), event)


cars.read("delivery-desk", offer, meanwhile=lambda: connection.process_data_events(0))
connection.close()
