# A service with Bunny. Scenarios: ../README.md.
require "bunny"
require "json"

$stdout.sync = true
scenario = JSON.parse(ARGV[0])
say = ->(what) { puts what.to_json }

connection = Bunny.new(scenario["url"], recover_from_connection_close: false,
                                        automatically_recover: false)
connection.start
channel = connection.create_channel
exchange = channel.public_send(scenario["type"], scenario["exchange"], durable: true) if scenario["exchange"]

if scenario["role"] == "publish"
  did = { published: 0, confirmed: 0, refused: 0, returned: 0 }
  nowhere = channel.fanout("nowhere", durable: true)
  [exchange, nowhere].each { |x| x.on_return { |*_| did[:returned] += 1 } }
  channel.confirm_select if scenario["confirm"]
  keys = scenario["keys"] || [""]
  plan = scenario["plan"].map { |verb| [exchange, verb] }
  plan += [[nowhere, "ack"]] * scenario.fetch("unroutable", 0)
  say.call(ready: true)
  plan.each_with_index do |(target, verb), i|
    target.publish({ order_id: "order-#{i}", do: verb }.to_json,
                   routing_key: keys[i % keys.size], message_id: "m-#{i}",
                   correlation_id: "flow-#{i}", type: "OrderPlaced", persistent: true,
                   content_type: "application/json", headers: scenario["headers"] || {},
                   mandatory: scenario.fetch("mandatory", false))
    did[:published] += 1
  end
  if scenario["confirm"]
    channel.wait_for_confirms
    did[:refused] = channel.nacked_set.size
    did[:confirmed] = did[:published] - did[:refused] - channel.unconfirmed_set.size
  end
else
  did = { delivered: 0, redelivered: 0, acked: 0, rejected: 0, requeued: 0, open: 0, deaths: 0 }
  channel.prefetch(scenario["prefetch"]) if scenario["prefetch"]
  name = scenario["queue"]
  queue = channel.queue(name, durable: !name.empty?, exclusive: name.empty?,
                              arguments: scenario["arguments"] || {})
  (scenario["keys"] || [""]).each { |key| queue.bind(exchange, routing_key: key) } if exchange
  done = ::Queue.new
  unacked = 0
  queue.subscribe(manual_ack: !scenario["auto_ack"]) do |delivery, properties, body|
    next if did[:delivered] == scenario["deliveries"]

    tag = delivery.delivery_tag
    died = (properties.headers || {}).key?("x-death")
    did[:delivered] += 1
    did[:redelivered] += 1 if delivery.redelivered?
    did[:deaths] += 1 if died
    verb = delivery.redelivered? || died ? "ack" : JSON.parse(body)["do"]
    if scenario["auto_ack"]
      # Settled as it is delivered.
    elsif scenario["multiple"]
      did[:acked] += 1
      unacked += 1
      if unacked == scenario["multiple"] || did[:delivered] == scenario["deliveries"]
        channel.ack(tag, true)
        unacked = 0
      end
    else
      case verb
      when "ack" then channel.ack(tag); did[:acked] += 1
      when "nack" then channel.nack(tag, false, false); did[:rejected] += 1
      when "reject" then channel.reject(tag, false); did[:rejected] += 1
      when "requeue" then channel.nack(tag, false, true); did[:requeued] += 1
      when "reject_requeue" then channel.reject(tag, true); did[:requeued] += 1
      when "leave" then did[:open] += 1
      end
    end
    if scenario["recover"] == did[:delivered]
      channel.basic_recover(true)
      did[:requeued] += did[:open]
      did[:open] = 0
    end
    done.push(true) if did[:delivered] == scenario["deliveries"]
  end
  say.call(ready: true, queue: queue.name)
  done.pop
end

if scenario["end"] == "crash"
  say.call(did)
  Process.kill("KILL", Process.pid)
end
connection.close
say.call(did)
