-- Renews the leases of a pool's living workers that are older than `age` seconds.
-- A worker's id is as random as a receipt and dies with its process, so it identifies the lease as well.
-- SKIP LOCKED: a row that is being settled needs no renewal, and to wait for it could deadlock.
-- Always returns a row: the time of the database, and each renewed task with whether it was cancelled.
WITH held AS (
    SELECT id
      FROM pgq_queue
     WHERE lock >= %(since)s AND lock < statement_timestamp() - %(age)s * interval '1 second'
       AND worker = ANY (%(workers)s)
       FOR UPDATE SKIP LOCKED
), renewed AS (
    UPDATE pgq_queue q
       SET lock = clock_timestamp()
      FROM held
     WHERE q.id = held.id
    RETURNING q.id, q.worker, q.cancelled
)
SELECT statement_timestamp(), renewed.id, renewed.worker, renewed.cancelled
  FROM (SELECT) AS always
  LEFT JOIN renewed ON true
