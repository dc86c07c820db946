# What the Ruby services of Edison Cars share: the envelope of an event, and the second chance.
require "bunny"
require "json"
require "securerandom"
require_relative "faults"

module Edison
  ATTEMPTS = 3

  def self.connect
    Bunny.new(ENV.fetch("AMQP_URL"), connection_name: ENV.fetch("SERVICE")).start
  end

  # Ten messages at a time. When the broker closes the channel the service is started anew.
  def self.channel(connection)
    channel = connection.create_channel
    channel.prefetch(10)
    channel.on_error do |_, close|
      warn close.reply_text
      exit!(1)
    end
    channel
  end

  # Options for publish: the event belongs to the flow of `cause` and was caused by it.
  def self.event(type, cause = nil)
    plain = { type: type, content_type: "application/json", persistent: true }
    return plain if ENV["IDS"] == "none"

    from = cause&.headers || {}
    plain.merge(headers: {
      "cloudEvents:specversion" => "1.0",
      "cloudEvents:id" => SecureRandom.uuid,
      "cloudEvents:source" => ENV.fetch("SERVICE"),
      "cloudEvents:type" => type,
      "cloudEvents:correlationid" => from["cloudEvents:correlationid"] || SecureRandom.uuid,
      "cloudEvents:causationid" => from["cloudEvents:id"],
      "command" => "PlaceOrder"
    }.compact)
  end

  # The queue that a service works from. What it rejects goes to SERVICE.dead and stays there; what
  # it wants to try again waits two seconds in SERVICE.retry and comes back.
  def self.queue(channel, name)
    service = ENV.fetch("SERVICE")
    channel.queue("#{service}.dead", durable: true)
    channel.queue("#{service}.retry", durable: true, arguments: back_to(name).merge("x-message-ttl" => 2000))
    channel.queue(name, durable: true, arguments: back_to("#{service}.dead"))
  end

  def self.back_to(queue)
    { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => queue }
  end

  # It failed: once more later, or never again.
  def self.failed(channel, delivery, properties, body, error)
    attempt = properties.headers.to_h.fetch("attempt", 1)
    warn "attempt #{attempt} of #{ATTEMPTS} failed: #{error.message}"
    return channel.reject(delivery.delivery_tag) if attempt >= ATTEMPTS

    channel.default_exchange.publish(
      body, routing_key: "#{ENV.fetch('SERVICE')}.retry", type: properties.type, persistent: true,
            content_type: properties.content_type,
            headers: properties.headers.to_h.merge("attempt" => attempt + 1)
    )
    channel.ack(delivery.delivery_tag)
  end

  # The time that real work takes (the first load of the demo does without).
  def self.work(seconds)
    sleep(seconds * rand(0.5..1.5)) unless Faults.hurry?
  end

  # Runs until the process is asked to end.
  def self.wait
    asked = Queue.new
    %w[TERM INT].each { |signal| Signal.trap(signal) { asked.push(true) } }
    puts "ready"
    $stdout.flush
    asked.pop
  end
end
