-- Deletes the row of a pool that stops. Rows of pools that died are removed when their heartbeat is old (forget_pools.sql).
DELETE FROM pgq_worker WHERE id = %(id)s
