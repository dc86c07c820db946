# Billing: takes the money once the parts are reserved.
require_relative "edison"

connection = Edison.connect
channel = Edison.channel(connection)
payments = channel.topic("payments", durable: true)
queue = Edison.queue(channel, "billing.stock")
queue.bind(channel.topic("stock", durable: true), routing_key: "stock.reserved")

consumer = queue.subscribe(manual_ack: true) do |delivery, properties, body|
  order = JSON.parse(body)
  next if Faults.strike(channel, delivery, order)

  Edison.work(0.03)
  payments.publish(order.to_json, routing_key: "payment.taken", **Edison.event("PaymentTaken", properties))
  # The fault "late-queue": a new event, released before anybody listens to it.
  if (fault = Faults.find("late-queue", order))
    channel.topic(fault["exchange"], durable: true)
           .publish(order.to_json, routing_key: "invoice.issued", **Edison.event("InvoiceIssued", properties))
  end
  channel.ack(delivery.delivery_tag)
rescue StandardError => e
  Edison.failed(channel, delivery, properties, body, e)
end

Edison.wait
consumer.cancel
connection.close
