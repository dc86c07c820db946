-- The same as `flows` for each day by itself: so a day is asked for without reading any other.
SELECT
    flow,
    day,
    min(first_at) AS first_at,
    max(last_at) AS last_at,
    sum(rows) AS rows,
    sum(publishes) AS publishes,
    sum(delivers) AS delivers,
    sum(settled) AS settled,
    sum(rejected) AS rejected,
    sum(requeued) AS requeued,
    sum(abandoned) AS abandoned,
    sum(confirms_expected) AS confirms_expected,
    sum(confirmed) AS confirmed,
    sum(refused) AS refused,
    sum(unroutable) AS unroutable,
    min(command) AS command,
    all_texts(services) AS services,
    all_texts(types) AS types,
    all_texts(systems) AS systems,
    all_keys(keys) AS keys
FROM flow_parts
GROUP BY flow, day
