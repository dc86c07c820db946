// A service with Kafka's own client. Scenarios: ../README.md.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class KafkaService {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Map<String, Object> did = new TreeMap<>();
    private static final AtomicBoolean stopped = new AtomicBoolean();
    private static JsonNode scenario;
    private static volatile boolean done;

    private static synchronized void count(String what, int by) {
        did.merge(what, by, (a, b) -> (Integer) a + (Integer) b);
    }

    private static synchronized void say(Object what) {
        try {
            System.out.println(JSON.writeValueAsString(what));
        } catch (Exception impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    private static String text(JsonNode of, String name, String otherwise) {
        return of.hasNonNull(name) ? of.get(name).asText() : otherwise;
    }

    private static boolean contains(JsonNode list, int number) {
        if (list != null) {
            for (JsonNode each : list) {
                if (each.asInt() == number) {
                    return true;
                }
            }
        }
        return false;
    }

    private static void pause() throws InterruptedException {
        int pause = scenario.path("every_ms").asInt();
        if (pause > 0) {
            Thread.sleep(pause);
        }
    }

    private static Properties common() {
        Properties all = new Properties();
        all.put("bootstrap.servers", text(scenario, "bootstrap", ""));
        all.put("client.id", text(scenario, "client_id", "kafka-java"));
        JsonNode security = scenario.path("security");
        String mechanism = text(security, "mechanism", null);
        String ca = text(security, "ca", null);
        if (mechanism != null || ca != null) {
            all.put("security.protocol",
                (mechanism != null ? "SASL_" : "") + (ca != null ? "SSL" : "PLAINTEXT"));
        }
        if (ca != null) {
            all.put("ssl.truststore.type", "PEM");
            all.put("ssl.truststore.location", ca);
            if (security.hasNonNull("keystore")) {
                all.put("ssl.keystore.type", "PEM");
                all.put("ssl.keystore.location", security.get("keystore").asText());
            }
        }
        if (mechanism != null) {
            all.put("sasl.mechanism", mechanism);
            String user = text(security, "user", "");
            String module = "org.apache.kafka.common.security." + switch (mechanism) {
                case "PLAIN" -> "plain.PlainLoginModule";
                case "OAUTHBEARER" -> "oauthbearer.OAuthBearerLoginModule";
                default -> "scram.ScramLoginModule";
            };
            all.put("sasl.jaas.config", mechanism.equals("OAUTHBEARER")
                ? module + " required unsecuredLoginStringClaim_sub=\"" + user
                    + "\" unsecuredLoginLifetimeSeconds=\"" + security.path("token_seconds").asInt(3600) + "\";"
                : module + " required username=\"" + user + "\" password=\""
                    + text(security, "password", "") + "\";");
        }
        return all;
    }

    private static void more(Properties all) {
        scenario.path("config").properties().forEach(
            entry -> all.put(entry.getKey(), entry.getValue().asText()));
    }

    private static KafkaProducer<byte[], byte[]> producer(JsonNode of, String transaction) {
        Properties all = common();
        all.put("key.serializer", ByteArraySerializer.class.getName());
        all.put("value.serializer", ByteArraySerializer.class.getName());
        all.put("acks", text(of, "acks", "all"));
        all.put("enable.idempotence",
            transaction != null || of.path("idempotent").asBoolean() ? "true" : "false");
        all.put("compression.type", text(of, "compression", "none"));
        all.put("linger.ms", text(of, "linger_ms", "5"));
        if (transaction != null) {
            all.put("transactional.id", transaction);
        }
        more(all);
        return new KafkaProducer<>(all);
    }

    private static void produce() throws Exception {
        List.of("published", "confirmed", "refused", "committed", "aborted").forEach(w -> count(w, 0));
        JsonNode transaction = scenario.get("transaction");
        boolean transactional = transaction != null && !transaction.isNull();
        KafkaProducer<byte[], byte[]> producer =
            producer(scenario, transactional ? transaction.get("id").asText() : null);
        if (transactional) {
            producer.initTransactions();
        } else {
            producer.partitionsFor(text(scenario, "topic", ""));
        }
        say(Map.of("ready", true));
        int size = transactional ? transaction.get("size").asInt() : Integer.MAX_VALUE;
        int all = scenario.get("count").asInt();
        JsonNode keys = scenario.path("keys");
        for (int i = 0; i < all && !stopped.get(); i++) {
            if (transactional && i % size == 0) {
                producer.beginTransaction();
            }
            Integer partition = scenario.hasNonNull("partition") ? scenario.get("partition").asInt() : null;
            byte[] key = keys.isEmpty() ? null
                : keys.get(i % keys.size()).asText().getBytes(StandardCharsets.UTF_8);
            ProducerRecord<byte[], byte[]> record =
                new ProducerRecord<>(text(scenario, "topic", ""), partition, key, value(i));
            for (JsonNode header : scenario.path("headers")) {
                record.headers().add(header.get(0).asText(),
                    header.get(1).isNull() ? null : header.get(1).asText().getBytes(StandardCharsets.UTF_8));
            }
            int number = i;
            producer.send(record, (where, error) -> {
                Map<String, Object> line = new HashMap<>();
                line.put("sent", number);
                if (error == null) {
                    count("confirmed", 1);
                    line.put("partition", where.partition());
                    line.put("offset", where.hasOffset() ? where.offset() : null);
                } else {
                    count("refused", 1);
                    line.put("error", error.getClass().getSimpleName());
                }
                say(line);
            });
            count("published", 1);
            if (transactional && (i % size == size - 1 || i == all - 1)) {
                // An abort drops what is not sent yet.
                producer.flush();
                end(producer, i / size, contains(transaction.get("abort"), i / size));
            }
            pause();
        }
        producer.flush();
        if (!"crash".equals(text(scenario, "end", "close"))) {
            producer.close();
        }
    }

    private static void end(KafkaProducer<byte[], byte[]> producer, int number, boolean abort) {
        if (abort) {
            producer.abortTransaction();
        } else {
            producer.commitTransaction();
        }
        String outcome = abort ? "aborted" : "committed";
        count(outcome, 1);
        say(Map.of("transaction", number, "outcome", outcome));
    }

    private static byte[] value(int number) {
        StringBuilder text = new StringBuilder("{\"order_id\":\"order-" + number + "\",\"n\":" + number);
        int bytes = scenario.path("bytes").asInt();
        if (bytes > text.length() + 10) {
            text.append(",\"pad\":\"").append("x".repeat(bytes - text.length() - 10)).append('"');
        }
        return text.append('}').toString().getBytes(StandardCharsets.UTF_8);
    }

    private static List<List<Object>> list(Collection<TopicPartition> partitions) {
        List<List<Object>> list = new ArrayList<>();
        partitions.forEach(each -> list.add(List.of(each.topic(), each.partition())));
        return list;
    }

    private static final Map<TopicPartition, OffsetAndMetadata> position = new HashMap<>();

    private static KafkaConsumer<byte[], byte[]> consumer() {
        Properties all = common();
        all.put("key.deserializer", ByteArrayDeserializer.class.getName());
        all.put("value.deserializer", ByteArrayDeserializer.class.getName());
        all.put("auto.offset.reset", "earliest");
        String protocol = text(scenario, "protocol", "classic");
        all.put("group.protocol", protocol);
        boolean auto = "auto".equals(text(scenario, "commit", "auto"));
        if (scenario.hasNonNull("group")) {
            all.put("group.id", scenario.get("group").asText());
            all.put("enable.auto.commit", auto);
            all.put("auto.commit.interval.ms", "200");
            if (protocol.equals("classic")) {
                all.put("session.timeout.ms", text(scenario, "session_ms", "6000"));
                all.put("heartbeat.interval.ms", "500");
            }
            if (scenario.hasNonNull("instance")) {
                all.put("group.instance.id", scenario.get("instance").asText());
            }
        } else {
            all.put("enable.auto.commit", "false");
        }
        all.put("isolation.level",
            scenario.path("read_committed").asBoolean() ? "read_committed" : "read_uncommitted");
        if (scenario.hasNonNull("max_batch")) {
            all.put("max.poll.records", scenario.get("max_batch").asText());
        }
        more(all);
        return new KafkaConsumer<>(all);
    }

    private static void subscribe(KafkaConsumer<byte[], byte[]> consumer) {
        List<String> topics = new ArrayList<>();
        scenario.get("topics").forEach(each -> topics.add(each.asText()));
        if (!scenario.hasNonNull("group")) {
            List<TopicPartition> all = new ArrayList<>();
            topics.forEach(topic -> consumer.partitionsFor(topic)
                .forEach(each -> all.add(new TopicPartition(topic, each.partition()))));
            consumer.assign(all);
            consumer.seekToBeginning(all);
            say(Map.of("ready", true));
            return;
        }
        boolean commits = "batch".equals(text(scenario, "commit", "auto"));
        consumer.subscribe(topics, new ConsumerRebalanceListener() {
            private boolean ready;

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                say(Map.of("assigned", list(partitions)));
                if (!ready) {
                    ready = true;
                    say(Map.of("ready", true));
                }
            }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                if (commits) {
                    commit(consumer);
                }
                position.keySet().removeAll(partitions);
                say(Map.of("revoked", list(partitions)));
            }

            @Override
            public void onPartitionsLost(Collection<TopicPartition> partitions) {
                position.keySet().removeAll(partitions);
                say(Map.of("lost", list(partitions)));
            }
        });
    }

    private static void commit(KafkaConsumer<byte[], byte[]> consumer) {
        if (!position.isEmpty()) {
            try {
                consumer.commitSync(position);
                said(position);
                position.clear();
            } catch (KafkaException failed) {
                // With the next batch, if the partition is still its own then.
                say(Map.of("failed", failed.getClass().getSimpleName()));
            }
        }
    }

    private static void said(Map<TopicPartition, OffsetAndMetadata> offsets) {
        offsets.forEach((of, offset) ->
            say(Map.of("committed", List.of(of.topic(), of.partition(), offset.offset()))));
    }

    private static void consume() throws Exception {
        List.of("received", "committed", "aborted").forEach(what -> count(what, 0));
        JsonNode to = scenario.get("to");
        KafkaProducer<byte[], byte[]> producer = null;
        if (to != null) {
            producer = producer(to, text(to, "transaction", null));
            producer.initTransactions();
        }
        KafkaConsumer<byte[], byte[]> consumer = consumer();
        subscribe(consumer);
        int records = scenario.path("records").asInt();
        boolean batch = "batch".equals(text(scenario, "commit", "auto"));
        int batches = 0;
        while (!stopped.get() && (records == 0 || (Integer) did.get("received") < records)) {
            ConsumerRecords<byte[], byte[]> polled = consumer.poll(Duration.ofMillis(100));
            if (polled.isEmpty()) {
                if (batch) {
                    commit(consumer);
                }
                continue;
            }
            if (producer != null) {
                producer.beginTransaction();
            }
            for (ConsumerRecord<byte[], byte[]> record : polled) {
                said(record);
                position.put(new TopicPartition(record.topic(), record.partition()),
                    new OffsetAndMetadata(record.offset() + 1));
                if (producer != null) {
                    producer.send(new ProducerRecord<>(to.get("topic").asText(), null, record.key(),
                        record.value(), record.headers()));
                }
                pause();
            }
            if (producer != null) {
                producer.sendOffsetsToTransaction(new HashMap<>(position), consumer.groupMetadata());
                boolean abort = contains(to.get("abort"), batches);
                end(producer, batches, abort);
                if (abort) {
                    // Once more, from where it was.
                    polled.partitions().forEach(
                        each -> consumer.seek(each, polled.records(each).get(0).offset()));
                } else {
                    said(position);
                }
                position.clear();
                batches++;
            } else if (batch) {
                commit(consumer);
            }
        }
        if ("crash".equals(text(scenario, "end", "close"))) {
            return;
        }
        consumer.close();
        if (producer != null) {
            producer.close();
        }
    }

    private static void said(ConsumerRecord<byte[], byte[]> record) {
        Map<String, Object> line = new TreeMap<>();
        line.put("topic", record.topic());
        line.put("partition", record.partition());
        line.put("offset", record.offset());
        line.put("key", record.key() == null ? null : new String(record.key(), StandardCharsets.UTF_8));
        line.put("size", record.value() == null ? null : record.value().length);
        line.put("timestamp", record.timestamp());
        List<List<String>> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            List<String> pair = new ArrayList<>();
            pair.add(header.key());
            pair.add(header.value() == null ? null : new String(header.value(), StandardCharsets.UTF_8));
            headers.add(pair);
        }
        line.put("headers", headers);
        count("received", 1);
        say(line);
    }

    public static void main(String[] arguments) throws Exception {
        scenario = JSON.readTree(arguments[0]);
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopped.set(true);
            try {
                main.join(20_000);
            } catch (InterruptedException ignored) {
                // It ends anyway.
            }
            if (done) {
                // Asked to end, it did: no failure.
                Runtime.getRuntime().halt(0);
            }
        }));
        if (text(scenario, "role", "").equals("produce")) {
            produce();
        } else {
            consume();
        }
        say(did);
        done = true;
        if ("crash".equals(text(scenario, "end", "close"))) {
            Runtime.getRuntime().halt(0);
        }
    }
}
