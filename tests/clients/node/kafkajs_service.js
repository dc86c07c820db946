// A service with kafkajs. Scenarios: ../README.md.
"use strict";

const fs = require("fs");
const kafkajs = require("kafkajs");
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = kafkajs;
CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");

const scenario = JSON.parse(process.argv[2]);
const did = {};
let stopped = false;
let stop = () => { stopped = true; };
process.on("SIGTERM", () => stop());

const say = (what) => fs.writeSync(1, JSON.stringify(what) + "\n");
const count = (what, by = 1) => { did[what] = (did[what] || 0) + by; };
const pause = () => scenario.every_ms
  ? new Promise((done) => setTimeout(done, scenario.every_ms)) : undefined;
const text = (bytes) => bytes === null || bytes === undefined ? null : bytes.toString();

const token = () => {
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: scenario.security.user, iat: now, exp: now + (scenario.security.token_seconds || 3600) };
  const part = (what) => Buffer.from(JSON.stringify(what)).toString("base64url");
  return `${part({ alg: "none" })}.${part(claims)}.`;
};

function client() {
  const config = {
    clientId: scenario.client_id || "kafkajs", brokers: scenario.bootstrap.split(","),
    logLevel: logLevel.ERROR, retry: { initialRetryTime: 50, retries: 10 },
  };
  const security = scenario.security || {};
  if (security.ca) {
    config.ssl = { ca: [fs.readFileSync(security.ca)] };
    if (security.cert) {
      config.ssl.cert = fs.readFileSync(security.cert);
      config.ssl.key = fs.readFileSync(security.key);
    }
  }
  if (security.mechanism === "OAUTHBEARER") {
    config.sasl = { mechanism: "oauthbearer", oauthBearerProvider: async () => ({ value: token() }) };
  } else if (security.mechanism) {
    config.sasl = {
      mechanism: security.mechanism.toLowerCase(), username: security.user, password: security.password,
    };
  }
  // So long before a login ends kafkajs renews it. A broker refuses that in the first second.
  config.reauthenticationThreshold = 500;
  return new Kafka({ ...config, ...scenario.config });
}

const COMPRESSION = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy };
const ACKS = { all: -1, 1: 1, 0: 0 };

function value(number) {
  let body = `{"order_id":"order-${number}","n":${number}`;
  const size = scenario.bytes || 0;
  if (size > body.length + 10) body += `,"pad":"${"x".repeat(size - body.length - 10)}"`;
  return body + "}";
}

// Of repeated headers kafkajs takes a list of values under one name, and puts them in a row. It knows
// no headers without a value: those are left out.
function headersOf(pairs) {
  const headers = {};
  for (const [name, content] of pairs || []) if (content !== null) (headers[name] ||= []).push(content);
  for (const name of Object.keys(headers)) if (headers[name].length === 1) headers[name] = headers[name][0];
  return headers;
}

const pairsOf = (headers) => Object.entries(headers || {}).flatMap(([name, content]) =>
  Array.isArray(content) ? content.map((each) => [name, text(each)]) : [[name, text(content)]]);

async function end(transaction, number, abort) {
  await (abort ? transaction.abort() : transaction.commit());
  const outcome = abort ? "aborted" : "committed";
  count(outcome);
  say({ transaction: number, outcome });
}

async function produce(kafka) {
  Object.assign(did, { published: 0, confirmed: 0, refused: 0, committed: 0, aborted: 0 });
  const plan = scenario.transaction;
  const producer = kafka.producer({
    idempotent: !!(scenario.idempotent || plan), transactionalId: plan && plan.id,
    maxInFlightRequests: plan || scenario.idempotent ? 1 : 5,
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  say({ ready: true });
  const keys = scenario.keys && scenario.keys.length ? scenario.keys : [null];
  // kafkajs sends what it is given at once: so many records are one call.
  const size = plan ? plan.size : (scenario.batch || 10);
  for (let from = 0; from < scenario.count && !stopped; from += size) {
    const messages = [];
    for (let i = from; i < Math.min(from + size, scenario.count); i++) {
      const message = { key: keys[i % keys.length], value: value(i), headers: headersOf(scenario.headers) };
      if (scenario.partition !== undefined) message.partition = scenario.partition;
      messages.push(message);
    }
    const transaction = plan && await producer.transaction();
    count("published", messages.length);
    try {
      const told = await (transaction || producer).send({
        topic: scenario.topic, messages, acks: ACKS[scenario.acks || "all"],
        compression: COMPRESSION[scenario.compression || "none"],
      });
      count("confirmed", messages.length);
      // It says the first offset of each partition only.
      for (const each of told || []) {
        say({ sent: from, partition: each.partition,
              offset: each.baseOffset === undefined ? null : Number(each.baseOffset) });
      }
    } catch (error) {
      count("refused", messages.length);
      say({ sent: from, error: error.type || error.name });
    }
    if (transaction) await end(transaction, from / size, (plan.abort || []).includes(from / size));
    await pause();
  }
  await producer.disconnect();
}

async function consume(kafka) {
  Object.assign(did, { received: 0, committed: 0, aborted: 0 });
  const commit = scenario.commit || "auto";
  const to = scenario.to;
  let producer;
  if (to) {
    producer = kafka.producer({ transactionalId: to.transaction, idempotent: true, maxInFlightRequests: 1,
                                createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
    await producer.connect();
  }
  const consumer = kafka.consumer({
    groupId: scenario.group, sessionTimeout: scenario.session_ms || 6000, heartbeatInterval: 500,
    rebalanceTimeout: 6000, readUncommitted: !scenario.read_committed, maxWaitTimeInMs: 200,
  });
  const { GROUP_JOIN, REBALANCING } = consumer.events;
  consumer.on(GROUP_JOIN, ({ payload }) => {
    say({ assigned: Object.entries(payload.memberAssignment)
      .flatMap(([topic, partitions]) => partitions.map((partition) => [topic, partition])) });
    say({ ready: true });
  });
  consumer.on(REBALANCING, () => say({ revoked: [] }));
  await consumer.connect();
  await consumer.subscribe({ topics: scenario.topics, fromBeginning: true });
  let batches = 0;
  const records = scenario.records || 0;
  const enough = () => stopped || (records && did.received >= records);
  const done = new Promise((resolve) => {
    stop = () => { stopped = true; resolve(); };
  });
  await consumer.run({
    autoCommit: commit === "auto" && !to, autoCommitInterval: 200, eachBatchAutoResolve: false,
    partitionsConsumedConcurrently: 1,
    eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
      const messages = batch.messages.slice(0, scenario.max_batch || batch.messages.length);
      const transaction = to && await producer.transaction();
      let next;
      for (const message of messages) {
        if (enough() || !isRunning() || isStale()) break;
        say({ topic: batch.topic, partition: batch.partition, offset: Number(message.offset),
              key: text(message.key), size: message.value && message.value.length,
              timestamp: Number(message.timestamp), headers: pairsOf(message.headers) });
        count("received");
        next = String(BigInt(message.offset) + 1n);
        if (transaction) {
          await transaction.send({ topic: to.topic, messages: [
            { key: message.key, value: message.value, headers: message.headers }] });
        }
        if (!transaction) resolveOffset(message.offset);
        await pause();
        if (scenario.every_ms) await heartbeat();
      }
      const offsets = next && [{ topic: batch.topic, partition: batch.partition, offset: next }];
      const said = () => say({ committed: [batch.topic, batch.partition, Number(next)] });
      if (transaction) {
        if (offsets) {
          await transaction.sendOffsets({ consumerGroupId: scenario.group, topics: [
            { topic: batch.topic, partitions: [{ partition: batch.partition, offset: next }] }] });
        }
        const abort = !offsets || (to.abort || []).includes(batches);
        await end(transaction, batches, abort);
        if (abort) {
          consumer.seek({ topic: batch.topic, partition: batch.partition, offset: messages[0].offset });
        } else {
          resolveOffset(messages[messages.length - 1].offset);
          said();
        }
        batches += 1;
      } else if (offsets && commit === "batch") {
        await consumer.commitOffsets(offsets);
        said();
      }
      if (enough()) stop();
    },
  });
  await done;
  if (scenario.end !== "crash") {
    await consumer.disconnect();
    if (producer) await producer.disconnect();
  }
}

(scenario.role === "produce" ? produce : consume)(client()).then(() => {
  say(did);
  process.exit(0);
}, (error) => {
  console.error(error);
  process.exit(1);
});
