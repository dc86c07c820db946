// A service with RabbitMQ's Java client. Scenarios: ../README.md.

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CountDownLatch;

public final class JavaService {
    private static JsonObject scenario;
    private static final Map<String, Integer> did = new TreeMap<>();

    private static synchronized void count(String what, int by) {
        did.merge(what, by, Integer::sum);
    }

    private static int number(String name) {
        return scenario.has(name) ? scenario.get(name).getAsInt() : 0;
    }

    private static boolean flag(String name) {
        return scenario.has(name) && scenario.get(name).getAsBoolean();
    }

    private static String text(String name) {
        return scenario.has(name) ? scenario.get(name).getAsString() : null;
    }

    private static List<String> texts(String name) {
        List<String> list = new ArrayList<>();
        if (scenario.has(name)) {
            JsonArray array = scenario.getAsJsonArray(name);
            array.forEach((JsonElement element) -> list.add(element.getAsString()));
        }
        return list;
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> table(String name) {
        return scenario.has(name) ? new Gson().fromJson(scenario.get(name), HashMap.class) : null;
    }

    private static List<String> keys() {
        List<String> keys = texts("keys");
        return keys.isEmpty() ? List.of("") : keys;
    }

    private static void say(Object what) {
        System.out.println(new Gson().toJson(what));
        System.out.flush();
    }

    private static void publish(Channel channel) throws Exception {
        for (String what : List.of("published", "confirmed", "refused", "returned")) {
            count(what, 0);
        }
        channel.exchangeDeclare(text("exchange"), text("type"), true);
        channel.exchangeDeclare("nowhere", "fanout", true);
        ConcurrentSkipListSet<Long> open = new ConcurrentSkipListSet<>();
        channel.addReturnListener(returned -> count("returned", 1));
        if (flag("confirm")) {
            channel.confirmSelect();
            channel.addConfirmListener(
                (tag, multiple) -> settle(open, tag, multiple, "confirmed"),
                (tag, multiple) -> settle(open, tag, multiple, "refused"));
        }
        say(Map.of("ready", true));
        List<String> plan = texts("plan");
        int all = plan.size() + number("unroutable");
        for (int i = 0; i < all; i++) {
            boolean routable = i < plan.size();
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
                .messageId("m-" + i).correlationId("flow-" + i).type("OrderPlaced")
                .contentType("application/json").deliveryMode(2).headers(table("headers")).build();
            JsonObject body = new JsonObject();
            body.addProperty("order_id", "order-" + i);
            body.addProperty("do", routable ? plan.get(i) : "ack");
            if (flag("confirm")) {
                open.add(channel.getNextPublishSeqNo());
            }
            channel.basicPublish(routable ? text("exchange") : "nowhere",
                keys().get(i % keys().size()), flag("mandatory"), properties,
                body.toString().getBytes(StandardCharsets.UTF_8));
            count("published", 1);
        }
        if (flag("confirm")) {
            channel.waitForConfirms(60_000);
        }
    }

    private static synchronized void settle(
            ConcurrentSkipListSet<Long> open, long tag, boolean multiple, String what) {
        if (multiple) {
            var covered = open.headSet(tag, true);
            count(what, covered.size());
            covered.clear();
        } else if (open.remove(tag)) {
            count(what, 1);
        }
    }

    private static void consume(Channel channel) throws Exception {
        for (String what : List.of(
                "delivered", "redelivered", "acked", "rejected", "requeued", "open", "deaths")) {
            count(what, 0);
        }
        String exchange = text("exchange");
        if (exchange != null) {
            channel.exchangeDeclare(exchange, text("type"), true);
        }
        String name = text("queue");
        String queue = channel.queueDeclare(
            name, !name.isEmpty(), name.isEmpty(), false, table("arguments")).getQueue();
        if (exchange != null) {
            for (String key : keys()) {
                channel.queueBind(queue, exchange, key);
            }
        }
        channel.basicQos(number("prefetch"));
        CountDownLatch done = new CountDownLatch(1);
        channel.basicConsume(queue, flag("auto_ack"), new DefaultConsumer(channel) {
            private int unacked;

            @Override
            public void handleDelivery(String consumer, Envelope envelope,
                    AMQP.BasicProperties properties, byte[] body) throws IOException {
                int deliveries = number("deliveries");
                if (did.get("delivered") == deliveries) {
                    return;
                }
                long tag = envelope.getDeliveryTag();
                boolean died = properties.getHeaders() != null
                    && properties.getHeaders().containsKey("x-death");
                count("delivered", 1);
                count("redelivered", envelope.isRedeliver() ? 1 : 0);
                count("deaths", died ? 1 : 0);
                String verb = envelope.isRedeliver() || died ? "ack"
                    : JsonParser.parseString(new String(body, StandardCharsets.UTF_8))
                        .getAsJsonObject().get("do").getAsString();
                int delivered = did.get("delivered");
                if (flag("auto_ack")) {
                    // Settled as it is delivered.
                } else if (number("multiple") > 0) {
                    count("acked", 1);
                    unacked++;
                    if (unacked == number("multiple") || delivered == deliveries) {
                        channel.basicAck(tag, true);
                        unacked = 0;
                    }
                } else {
                    switch (verb) {
                        case "ack" -> { channel.basicAck(tag, false); count("acked", 1); }
                        case "nack" -> {
                            channel.basicNack(tag, false, false); count("rejected", 1); }
                        case "reject" -> { channel.basicReject(tag, false); count("rejected", 1); }
                        case "requeue" -> {
                            channel.basicNack(tag, false, true); count("requeued", 1); }
                        case "reject_requeue" -> {
                            channel.basicReject(tag, true); count("requeued", 1); }
                        default -> count("open", 1);
                    }
                }
                if (number("recover") == delivered) {
                    recover(channel);
                }
                if (delivered == deliveries) {
                    done.countDown();
                }
            }
        });
        say(Map.of("ready", true, "queue", queue));
        done.await();
    }

    // A synchronous call may not be made from the consumer's own thread.
    private static void recover(Channel channel) {
        count("requeued", did.get("open"));
        did.put("open", 0);
        new Thread(() -> {
            try {
                channel.basicRecover(true);
            } catch (IOException failed) {
                throw new IllegalStateException(failed);
            }
        }).start();
    }

    public static void main(String[] arguments) throws Exception {
        ((ch.qos.logback.classic.Logger) org.slf4j.LoggerFactory.getLogger("ROOT"))
            .setLevel(ch.qos.logback.classic.Level.WARN);
        scenario = JsonParser.parseString(arguments[0]).getAsJsonObject();
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(text("url"));
        factory.setAutomaticRecoveryEnabled(false);
        Connection connection = factory.newConnection("java-service");
        Channel channel = connection.createChannel();
        if (text("role").equals("publish")) {
            publish(channel);
        } else {
            consume(channel);
        }
        if ("crash".equals(text("end"))) {
            say(did);
            Runtime.getRuntime().halt(137);
        }
        connection.close();
        say(did);
    }
}
