-- Of the live tasks of that id, name or group, returns how many this transaction has enqueued, which no worker sees before
-- its commit, and how many others there are.
-- If the transaction that wrote a visible row is still in progress, it is this one; the row's xmin may be that of a
-- savepoint. xmin has 32 bits, so it is counted from this transaction's number, which is never later.
WITH here AS (
    SELECT pg_current_xact_id_if_assigned()::text::bigint AS number
), live AS (
    SELECT q.enqueued_at, here.number,
           mod(q.xmin::text::bigint - mod(here.number, 4294967296) + 4294967296, 4294967296) AS later
      FROM pgq_queue q CROSS JOIN here
     WHERE q.id = %(id)s::uuid OR q.name = %(name)s::text OR q."group" = %(group)s::text
), counted AS (
    SELECT CASE WHEN number IS NOT NULL AND enqueued_at >= transaction_timestamp() AND later < 2147483648
                THEN pg_xact_status((number + later)::text::xid8) = 'in progress'
                ELSE false END AS own
      FROM live
)
SELECT count(*) FILTER (WHERE own), count(*) FILTER (WHERE NOT own) FROM counted
