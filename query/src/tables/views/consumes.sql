-- One row a delivery, with its end.
-- outcome: what the settle row says. A Kafka delivery without one counts as 'committed' when any
-- agent saw its group commit past it since (another agent's clock may be 5 s behind). Deliveries
-- still open when their agent died (a gap of reason 'agent_died' names the boot), or when their
-- connection began to pass without being understood (reason 'out of sight'), are 'unknown': nobody
-- saw how they ended. Null: still open, or nothing to settle (no group, a broker tap).
SELECT
  d.agent, d.boot, d.seq, d.at, d.broker_at, d.day, d.tap,
  d.system, d.cluster, d.vhost, d.destination, d.routing_key, d.subscription,
  d.partition, d.log_offset,
  d.service, d.instance, d.client, d.principal,
  d.connection, d.channel, d.consumer, d.delivery_tag,
  d.message, d.cluster_key,
  d.event_id, d.event_id_from, d.event_type, d.event_type_from,
  d.transaction_id, d.transaction_id_from, d.causation_id, d.causation_id_from,
  d.command, d.command_from, d.command_id, d.command_id_from,
  d.trace_id, d.trace_id_from, d.span_id, d.span_id_from,
  d.keys, d.headers, d.size, d.content_type,
  coalesce(d.payload, s.payload) AS payload,
  d.redelivered, d.attempt, d.broker_txn, d.details,
  CASE
    WHEN s.seq IS NOT NULL THEN s.outcome
    WHEN has_passed(g.progress, d.log_offset, d.at, d.agent) THEN 'committed'
    WHEN died.ref_boot IS NOT NULL OR opaque.since >= d.at THEN 'unknown'
  END AS outcome,
  CASE
    WHEN s.seq IS NOT NULL THEN s.reason
    WHEN has_passed(g.progress, d.log_offset, d.at, d.agent) THEN NULL
    WHEN died.ref_boot IS NOT NULL THEN 'agent_died'
    WHEN opaque.since >= d.at THEN 'out of sight'
  END AS reason,
  s.at AS settled_at,
  s.took_us
FROM history d
LEFT JOIN (
  SELECT agent, ref_boot, ref_seq, seq, at, outcome, reason, took_us, payload
  FROM history WHERE kind = 'settle'
) s ON s.agent = d.agent AND s.ref_boot = d.boot AND s.ref_seq = d.seq
LEFT JOIN (
  SELECT DISTINCT agent, ref_boot
  FROM history WHERE kind = 'gap' AND reason = 'agent_died' AND ref_boot IS NOT NULL
) died ON died.agent = d.agent AND died.ref_boot = d.boot
LEFT JOIN (
  SELECT agent, boot, connection, min(gap_from) AS since
  FROM history
  WHERE kind = 'gap' AND system = 'rabbitmq' AND connection IS NOT NULL AND gap_to IS NULL
  GROUP BY agent, boot, connection
) opaque ON opaque.agent = d.agent AND opaque.boot = d.boot AND opaque.connection = d.connection
LEFT JOIN (
  SELECT cluster, destination, partition, subscription,
    group_progress(at, log_offset, agent) AS progress
  FROM history WHERE kind = 'position' AND system = 'kafka'
  GROUP BY cluster, destination, partition, subscription
) g ON d.system = 'kafka' AND g.cluster = d.cluster AND g.destination = d.destination
   AND g.partition = d.partition AND g.subscription = d.subscription
WHERE d.kind = 'deliver'
