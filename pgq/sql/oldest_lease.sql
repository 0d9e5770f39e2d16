-- The oldest lease from `since` on: where the next search for expired leases may begin.
SELECT statement_timestamp(), (SELECT lock FROM pgq_queue WHERE lock >= %(since)s ORDER BY lock LIMIT 1)
