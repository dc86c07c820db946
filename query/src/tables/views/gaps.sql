-- One row for each time that an agent could not see, in its own words: from, to, how many, why.
-- And one for each object that was left out because it cannot be read or does not hold what its
-- name says (reason 'object_refused', `object` names it), and for rows that never came although what
-- lies behind them did (reason 'rows_lost'). An object of a newer agent is there, too, until flowtap is
-- upgraded (reason 'newer_schema'): its rows are seen, columns that are not known here are not.
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
  reason, NULL, NULL, CASE WHEN reason <> 'newer_schema' THEN last_seq - first_seq + 1 END, NULL, NULL, why,
  object
FROM refused
