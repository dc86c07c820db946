-- One row for each time that an agent could not see, in its own words: from, to, how many, why.
-- And one for each object that was left out because it cannot be read or does not hold what its
-- name says (reason 'object_refused', `object` names it), and for rows that never came although what
-- lies behind them did (reason 'rows_lost').
SELECT
  agent, boot, seq, at, day, service, instance, tap, system, cluster, vhost,
  destination, subscription, connection, channel,
  reason, gap_from, gap_to, gap_count, ref_boot, ref_seq, details,
  CAST(NULL AS VARCHAR) AS object
FROM history
WHERE kind = 'gap'
UNION ALL
SELECT
  agent, boot, NULL, at, CAST(at AS DATE), NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, NULL, NULL, NULL,
  reason, NULL, NULL, last_seq - first_seq + 1, NULL, NULL, why,
  object
FROM refused
