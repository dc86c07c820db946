-- One row a publish, with the broker's answer to it.
-- outcome: 'unroutable' when a return came, whatever the confirm said (the broker confirms what
-- no queue took, too); else the confirm's 'confirmed' or 'refused'; else null: no answer was owed
-- (confirm_expected) or none came yet. What Kafka tells only in its answer (message, partition,
-- offset, the time of a topic with the broker's times) is filled in here.
-- transaction_outcome: how the broker transaction ended that it was part of; readers of committed
-- data never see what was 'aborted'.
SELECT
  p.agent, p.boot, p.seq, p.at, coalesce(p.broker_at, c.broker_at) AS broker_at, p.day, p.tap,
  p.system, p.cluster, p.vhost, p.destination, p.routing_key,
  coalesce(p.partition, c.partition) AS partition,
  coalesce(p.log_offset, c.log_offset) AS log_offset,
  p.service, p.instance, p.client, p.principal, p.connection, p.channel, p.delivery_tag,
  coalesce(p.message, c.message) AS message,
  coalesce(p.cluster_key, c.message) AS cluster_key,
  p.event_id, p.event_id_from, p.event_type, p.event_type_from,
  p.transaction_id, p.transaction_id_from, p.causation_id, p.causation_id_from,
  p.command, p.command_from, p.command_id, p.command_id_from,
  p.trace_id, p.trace_id_from, p.span_id, p.span_id_from,
  p.keys, p.headers, p.size, p.content_type,
  coalesce(p.payload, r.payload, c.payload) AS payload,
  p.confirm_expected, p.broker_txn, p.details,
  CASE WHEN r.seq IS NOT NULL THEN 'unroutable' ELSE c.outcome END AS outcome,
  CASE WHEN r.seq IS NOT NULL THEN r.reason ELSE c.reason END AS reason,
  t.outcome AS transaction_outcome,
  c.at AS confirmed_at,
  r.at AS returned_at,
  CAST(arrow_cast(c.at, 'Int64') - arrow_cast(p.at, 'Int64') AS BIGINT) AS confirm_us
FROM history p
LEFT JOIN (
  SELECT agent, ref_boot, ref_seq, at, broker_at, outcome, reason, message, partition, log_offset,
    payload
  FROM history WHERE kind = 'confirm'
) c ON c.agent = p.agent AND c.ref_boot = p.boot AND c.ref_seq = p.seq
LEFT JOIN (
  SELECT agent, ref_boot, ref_seq, seq, at, reason, payload
  FROM history WHERE kind = 'return'
) r ON r.agent = p.agent AND r.ref_boot = p.boot AND r.ref_seq = p.seq
LEFT JOIN (
  SELECT agent, boot, broker_txn, max(outcome) AS outcome
  FROM history WHERE kind = 'transaction' AND broker_txn IS NOT NULL
  GROUP BY agent, boot, broker_txn
) t ON t.agent = p.agent AND t.boot = p.boot AND t.broker_txn = p.broker_txn
WHERE p.kind = 'publish'
