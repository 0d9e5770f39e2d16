-- Returns the oldest lease from `since` on, where the next search for expired leases may begin; and whether there are
-- leases in the future, which only a clock that was set back leaves. (By a second: one may be granted while this runs.)
SELECT statement_timestamp() AS now, (SELECT lock FROM pgq_queue WHERE lock >= %(since)s ORDER BY lock LIMIT 1) AS oldest,
       EXISTS (SELECT FROM pgq_queue WHERE lock > statement_timestamp() + interval '1 second') AS ahead
