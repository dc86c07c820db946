"""The factory: schedules and builds what is paid. What becomes of a car, step by step, goes to the
topic of cars; that it is scheduled and built, to RabbitMQ."""

import json

import cars
import edison
import faults

connection = edison.connect()
channel = connection.channel()
channel.basic_qos(prefetch_count=10)
channel.exchange_declare("payments", "topic", durable=True)
channel.exchange_declare("cars", "topic", durable=True)
edison.queue(channel, "factory.payments")
channel.queue_bind("factory.payments", "payments", "payment.taken")
producer = cars.producer()


def build(order, cause):
    channel.basic_publish("cars", "car.scheduled", json.dumps(order), edison.event("CarScheduled", cause))
    # The orders of the first load are from before there was a topic of cars.
    for state in () if faults.hurry() else ("BodyWelded", "Painted", "BatteryFitted", "Finished"):
        edison.work(0.05)
        cars.tell(producer, order, state, cause)
    if producer.flush(10):
        raise RuntimeError("the topic of cars does not answer")
    channel.basic_publish("cars", "car.built", json.dumps(order), edison.event("CarBuilt", cause))


edison.consume(channel, "factory.payments", build)
connection.close()
