# The shop: takes orders and says so, to whom it may concern. Like many a web application it opens a
# connection for each event that it publishes.
#
#   ruby shop.rb                      an order each second
#   ruby shop.rb import FIRST COUNT   orders of former years, over one connection
require_relative "edison"

CUSTOMERS = JSON.parse(File.read("#{__dir__}/../customers.json"))

def order(number)
  customer = number % CUSTOMERS.size
  { order_id: "order-#{number}", customer_id: "customer-#{customer}", customer: CUSTOMERS[customer][0],
    model: number % 10 == 7 ? "hovercraft" : %w[roadster wagon van][number % 3], price: 20_000 + number % 9000 }
end

def place(channel, number)
  channel.fanout("orders", durable: true).publish(order(number).to_json, **Edison.event("OrderPlaced"))
end

def with_channel
  connection = Edison.connect
  channel = connection.create_channel
  channel.confirm_select
  yield channel
  channel.wait_for_confirms or abort "the broker refused an order"
ensure
  connection&.close
end

if ARGV[0] == "import"
  first, count = ARGV[1..].map(&:to_i)
  (first...first + count).each_slice(500) do |numbers|
    with_channel { |channel| numbers.each { |number| place(channel, number) } }
  end
  exit
end

running = true
%w[TERM INT].each { |signal| Signal.trap(signal) { running = false } }
puts "ready"
$stdout.flush
last = ENV.fetch("LAST_ORDER") # the file with the number of the newest order
while running
  number = File.read(last).to_i + 1
  with_channel { |channel| place(channel, number) }
  # At once: somebody may read it just now.
  File.write("#{last}.partial", number)
  File.rename("#{last}.partial", last)
  sleep ENV.fetch("PAUSE", "1").to_f
end
