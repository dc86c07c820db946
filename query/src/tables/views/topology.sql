-- One row a change of queue, exchange, binding or topic: what, and what was done to it (outcome).
-- A queue's name stands in subscription, an exchange's or topic's in destination, a binding key in
-- routing_key; an exchange that is bound to another has that other in destination and its own name
-- in bound_to.
SELECT
  agent, boot, seq, at, day, tap, system, cluster, vhost, service, instance,
  json_get(details, '/what') AS what,
  outcome, destination, subscription, routing_key,
  json_get(details, '/to') AS bound_to,
  json_get(details, '/arguments') AS arguments,
  reason, principal, connection, channel, details
FROM history
WHERE kind = 'topology'
