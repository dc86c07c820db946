-- One row each time that a Kafka consumer group's committed offset of a partition changed: what the
-- group reads next. moved: how far it went; less than nothing where it was set back.
SELECT
  agent, boot, seq, at, day, tap, cluster,
  subscription, destination, partition, log_offset,
  arrow_cast(json_get(details, '/from'), 'Int64') AS log_offset_before,
  log_offset - arrow_cast(json_get(details, '/from'), 'Int64') AS moved,
  service, instance, consumer, details
FROM history
WHERE kind = 'position'
