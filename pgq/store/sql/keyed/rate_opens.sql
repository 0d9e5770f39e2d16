-- Returns in how many seconds the first of the rates that are used up lets another task start: of the lanes of keys in use,
-- and of the queues. NULL: none is. 1,000 lanes at most are looked at: the poll finds what opens behind them.
SELECT extract(epoch FROM min(opens.not_before) - clock_timestamp())::float8 AS seconds
  FROM (SELECT r.not_before
          FROM pgq_limit m
          JOIN pgq_rate r ON r.scope = 'queue' AND r.name = m.name AND r.limited_at = m.updated_at
         WHERE m.scope = 'queue' AND m.rate > 0
         UNION ALL
        SELECT r.not_before
          FROM (SELECT k.key FROM pgq_keyed k
                 WHERE k.idle_since IS NULL
                   AND EXISTS (SELECT FROM pgq_limit l WHERE l.scope = 'key' AND l.rate > 0)
                 LIMIT 1000) k
          JOIN pgq_limit l ON l.scope = 'key' AND l.name = split_part(k.key, ':', 1) AND l.rate > 0
          JOIN pgq_rate r ON r.scope = 'key' AND r.name = k.key AND r.limited_at = l.updated_at) opens
 WHERE opens.not_before > clock_timestamp()
