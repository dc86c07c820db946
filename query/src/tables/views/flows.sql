-- One row a flow that has a transaction id. What is derived of `history`, and rows that are not in it
-- yet, are `flow_parts`: they add up, each row of `history` once.
SELECT
    flow,
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
    all_keys(keys) AS keys,
    -- More than 10 000 messages an hour: the id is something else.
    sum(publishes) / ((CAST(max(last_at) AS BIGINT) - CAST(min(first_at) AS BIGINT)) / 3600000000 + 1)
        > 10000 AS no_flow,
    min(day) AS first_day,
    max(day) AS last_day
FROM flow_parts
GROUP BY flow
