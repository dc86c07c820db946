# The faults of the demo, as the Ruby services suffer them. A service of your own has no such file.
# The control page writes what is switched on into one small file, which is read again when it changes.
require "json"

module Faults
  def self.state
    changed = File.mtime(ENV.fetch("FAULTS"))
    return @state if @changed == changed

    @changed = changed
    @state = JSON.parse(File.read(ENV.fetch("FAULTS")))
  end

  # The fault of this name if it is switched on and hits this order here.
  def self.find(name, order)
    fault = state["faults"][name]
    return unless fault && fault["service"] == ENV.fetch("SERVICE")

    fault if fault["orders"].empty? || fault["orders"].include?(order["order_id"])
  end

  def self.hurry?
    state["hurry"]
  end

  # True: the message is dealt with, the service shall not touch it.
  def self.strike(channel, delivery, order)
    wait_while("hangs", order)
    wait_while("slow", order)
    exit!(137) if find("dies", order)
    raise "this order can't be read" if find("poison", order)

    if find("rejects", order)
      channel.reject(delivery.delivery_tag)
      true
    elsif find("forgets", order)
      channel.ack(delivery.delivery_tag)
      true
    end
  end

  def self.wait_while(name, order)
    started = Time.now
    while (fault = find(name, order)) && Time.now - started < fault.fetch("seconds", Float::INFINITY)
      sleep 0.1
    end
  end
end
