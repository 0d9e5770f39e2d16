-- Of the live tasks of that id, name or group, returns how many this transaction has enqueued, which no worker sees before
-- its commit, and how many others there are.
-- A row that we see while the transaction which wrote it is still in progress is our own; its xmin may be that of a
-- savepoint. xmin has 32 bits, so it is counted from our own transaction's number, which is never later.
WITH ours AS (
    SELECT pg_current_xact_id_if_assigned()::text::bigint AS number
), live AS (
    SELECT q.enqueued_at, ours.number,
           mod(q.xmin::text::bigint - mod(ours.number, 4294967296) + 4294967296, 4294967296) AS later
      FROM pgq_queue q CROSS JOIN ours
     WHERE q.id = %(id)s::uuid OR q.name = %(name)s::text OR q."group" = %(group)s::text
), counted AS (
    SELECT CASE WHEN number IS NOT NULL AND enqueued_at >= transaction_timestamp() AND later < 2147483648
                THEN pg_xact_status((number + later)::text::xid8) = 'in progress'
                ELSE false END AS own
      FROM live
)
SELECT count(*) FILTER (WHERE own), count(*) FILTER (WHERE NOT own) FROM counted
