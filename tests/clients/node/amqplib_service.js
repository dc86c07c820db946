// A service with amqplib: a confirm channel, mandatory publishes. Scenarios: ../README.md.
'use strict';
const amqp = require('amqplib');

const scenario = JSON.parse(process.argv[2]);
const say = (what) => console.log(JSON.stringify(what));

async function publish(connection) {
  const did = { published: 0, confirmed: 0, refused: 0, returned: 0 };
  const channel = scenario.confirm
    ? await connection.createConfirmChannel() : await connection.createChannel();
  channel.on('return', () => { did.returned += 1; });
  await channel.assertExchange(scenario.exchange, scenario.type, { durable: true });
  await channel.assertExchange('nowhere', 'fanout', { durable: true });
  const keys = scenario.keys || [''];
  const plan = scenario.plan.map((verb) => [scenario.exchange, verb])
    .concat(Array.from({ length: scenario.unroutable || 0 }, () => ['nowhere', 'ack']));
  say({ ready: true });
  const answers = plan.map(([exchange, verb], i) => new Promise((resolve) => {
    const body = Buffer.from(JSON.stringify({ order_id: `order-${i}`, do: verb }));
    const options = {
      messageId: `m-${i}`, correlationId: `flow-${i}`, type: 'OrderPlaced', persistent: true,
      contentType: 'application/json', headers: scenario.headers || {},
      mandatory: scenario.mandatory || false,
    };
    const answered = (error) => { did[error ? 'refused' : 'confirmed'] += 1; resolve(); };
    channel.publish(exchange, keys[i % keys.length], body, options,
      scenario.confirm ? answered : undefined);
    did.published += 1;
    if (!scenario.confirm) resolve();
  }));
  await Promise.all(answers);
  await channel.close();
  return did;
}

async function consume(connection) {
  const did = {
    delivered: 0, redelivered: 0, acked: 0, rejected: 0, requeued: 0, open: 0, deaths: 0,
  };
  const channel = await connection.createChannel();
  if (scenario.exchange) {
    await channel.assertExchange(scenario.exchange, scenario.type, { durable: true });
  }
  const { queue } = await channel.assertQueue(scenario.queue, {
    durable: scenario.queue !== '', exclusive: scenario.queue === '',
    arguments: scenario.arguments || {},
  });
  for (const key of scenario.exchange ? scenario.keys || [''] : []) {
    await channel.bindQueue(queue, scenario.exchange, key);
  }
  if (scenario.prefetch) await channel.prefetch(scenario.prefetch);
  let unacked = 0;
  let done;
  const finished = new Promise((resolve) => { done = resolve; });
  await channel.consume(queue, (message) => {
    if (message === null || did.delivered === scenario.deliveries) return;
    const { redelivered } = message.fields;
    const died = 'x-death' in (message.properties.headers || {});
    did.delivered += 1;
    if (redelivered) did.redelivered += 1;
    if (died) did.deaths += 1;
    const verb = redelivered || died ? 'ack' : JSON.parse(message.content.toString()).do;
    if (scenario.auto_ack) {
      // Settled as it is delivered.
    } else if (scenario.multiple) {
      did.acked += 1;
      unacked += 1;
      if (unacked === scenario.multiple || did.delivered === scenario.deliveries) {
        channel.ack(message, true);
        unacked = 0;
      }
    } else {
      switch (verb) {
        case 'ack': channel.ack(message); did.acked += 1; break;
        case 'nack': channel.nack(message, false, false); did.rejected += 1; break;
        case 'reject': channel.reject(message, false); did.rejected += 1; break;
        case 'requeue': channel.nack(message, false, true); did.requeued += 1; break;
        case 'reject_requeue': channel.reject(message, true); did.requeued += 1; break;
        default: did.open += 1;
      }
    }
    if (scenario.recover === did.delivered) {
      channel.recover();
      did.requeued += did.open;
      did.open = 0;
    }
    if (did.delivered === scenario.deliveries) done();
  }, { noAck: scenario.auto_ack || false });
  say({ ready: true, queue });
  await finished;
  if (scenario.end !== 'crash') await channel.close();
  return did;
}

async function main() {
  const connection = await amqp.connect(scenario.url);
  const did = await (scenario.role === 'publish' ? publish : consume)(connection);
  if (scenario.end === 'crash') {
    // What was written to the socket goes out first, as it would from a service that dies.
    const { stream } = connection.connection;
    do {
      await new Promise((resolve) => { setTimeout(resolve, 10); });
    } while (stream.writableLength > 0);
    say(did);
    process.kill(process.pid, 'SIGKILL');
  }
  await connection.close();
  say(did);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
