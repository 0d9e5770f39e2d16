-- A part of choose.sql and peek_keyed.sql: the lanes of the keys of one priority, the highest below `below`, that have a
-- ready row and, as far as can be told without locks, room. As `lane`, {lanes} of them at most.
-- Queues take turns, and within a queue its keys: so the lanes are looked at in a ring of queues behind `after`, and in each
-- queue in a ring of keys behind the one that `keys` names for it. {looked} lanes at most are looked at, shared by the
-- queues, so that a claim costs no more however many keys are full. A queue that has a limit brings its rows without a key
-- as one lane more, whose key is ''. It comes first, or last for the queues of `plain_last`.
--
-- Example: queue a has the keys x and y, queue b has z; after = 'a', keys = {a: x}. The turns are b z, a y, a x.
--
-- What an unlocked count says may be too high by what was freed since, which costs a turn. It is never too low for long:
-- claim_keyed.sql counts again.
best AS MATERIALIZED (
    SELECT greatest((SELECT max(k.priority) FROM pgq_keyed k WHERE k.idle_since IS NULL AND k.priority < %(below)s),
                    (SELECT max(l.priority) FROM pgq_limit m JOIN pgq_lane l ON l.queue = m.name
                      WHERE m.scope = 'queue' AND l.priority < %(below)s AND l.low < pg_sequence_last_value('pgq_position'::regclass)))
           AS priority
), ring (queue, lap, n) AS (
    SELECT %(after)s::text COLLATE "C", 0, 0
     UNION ALL
    SELECT coalesce(next.queue, '' COLLATE "C"), ring.lap + (next.queue IS NULL)::integer, ring.n + 1
      FROM ring
     CROSS JOIN LATERAL (
           SELECT least((SELECT k.queue FROM pgq_keyed k
                          WHERE k.idle_since IS NULL AND k.priority = (SELECT priority FROM best) AND k.queue > ring.queue
                          ORDER BY k.queue LIMIT 1),
                        (SELECT m.name FROM pgq_limit m
                          WHERE m.scope = 'queue' AND m.name > ring.queue
                            AND EXISTS (SELECT FROM pgq_lane l
                                         WHERE l.queue = m.name AND l.priority = (SELECT priority FROM best))
                          ORDER BY m.name LIMIT 1)) AS queue) found
     CROSS JOIN LATERAL (SELECT CASE WHEN ring.lap = 0 OR found.queue <= %(after)s::text THEN found.queue END AS queue) next
     WHERE ring.lap < 2 AND ring.n < 1000
), served AS MATERIALIZED (
    SELECT ring.queue, ring.n, m.name IS NOT NULL AS limited, m.concurrency, m.rate,
           (SELECT g.key FROM unnest(%(ring_queues)s::text[], %(ring_keys)s::text[]) AS g (queue, key)
             WHERE g.queue = ring.queue) AS after,
           ring.queue = ANY (%(plain_last)s::text[]) AS plain_last
      FROM ring
      LEFT JOIN pgq_limit m ON m.scope = 'queue' AND m.name = ring.queue
      LEFT JOIN pgq_rate r ON r.scope = 'queue' AND r.name = ring.queue AND r.limited_at = m.updated_at AND m.rate IS NOT NULL
     CROSS JOIN (SELECT last_value AS low FROM pgq_strand_low) bound
     WHERE ring.queue <> '' AND ring.n > 0
       -- The ring's first row and the one between its laps name no queue of it.
       AND (%(queues)s::text[] IS NULL OR ring.queue {among} (%(queues)s::text[]))
       AND (%(excluded)s::text[] IS NULL OR ring.queue {apart} (%(excluded)s::text[]))
       AND ring.queue NOT IN (SELECT p.queue FROM pgq_lane p WHERE p.paused)
       AND (m.rate IS NULL OR (m.rate > 0 AND coalesce(r.not_before <= clock_timestamp(), true)))
       AND (m.concurrency IS NULL OR m.concurrency > (
           WITH RECURSIVE s (strand, n) AS (
               (SELECT q.strand, 1 FROM pgq_queue q WHERE q.queue = ring.queue AND q.strand IS NOT NULL AND q.strand > bound.low
                 ORDER BY q.strand LIMIT 1)
                UNION ALL
               SELECT (SELECT q.strand FROM pgq_queue q
                        WHERE q.queue = ring.queue AND q.strand IS NOT NULL AND q.strand > s.strand
                        ORDER BY q.strand LIMIT 1), s.n + 1
                 FROM s WHERE s.strand IS NOT NULL AND s.n < m.concurrency)
           SELECT count(strand) FROM s))
     ORDER BY ring.n
     LIMIT 32
), looked AS MATERIALIZED (
    SELECT served.queue, served.n, served.limited, served.rate, k.key, k.low,
           row_number() OVER (PARTITION BY served.n ORDER BY k.part, k.key) AS turn
      FROM served
     CROSS JOIN LATERAL (
           SELECT '' COLLATE "C" AS key, l.low, CASE WHEN served.plain_last THEN 3 ELSE 0 END AS part
             FROM pgq_lane l
            WHERE served.limited AND l.queue = served.queue AND l.priority = (SELECT priority FROM best)
            UNION ALL
           SELECT * FROM (
               (SELECT k.key, k.low, 1 AS part
                  FROM pgq_keyed k
                 WHERE k.idle_since IS NULL AND k.priority = (SELECT priority FROM best) AND k.queue = served.queue
                   AND k.key > coalesce(served.after, '')
                 -- As many as all of it: else a key of the next lap would be taken for the one where the ring goes on.
                 ORDER BY k.key LIMIT {looked} + 1)
                UNION ALL
               (SELECT k.key, k.low, 2
                  FROM pgq_keyed k
                 WHERE k.idle_since IS NULL AND k.priority = (SELECT priority FROM best) AND k.queue = served.queue
                   AND k.key <= served.after
                 ORDER BY k.key LIMIT {looked})) behind
            LIMIT greatest({looked} / (SELECT count(*) FROM served), 8) + 1) k
), lane AS MATERIALIZED (
    SELECT looked.queue, looked.n, looked.turn, looked.key, looked.low, looked.limited AS queue_limited,
           looked.rate IS NOT NULL AS queue_rated, l.name IS NOT NULL AS key_limited,
           l.rate IS NOT NULL OR coalesce(l.strict, false) AS key_rated
      FROM (SELECT * FROM looked ORDER BY turn, n) looked
     CROSS JOIN (SELECT last_value AS low FROM pgq_strand_low) bound
      LEFT JOIN pgq_limit l ON l.scope = 'key' AND l.name = split_part(looked.key, ':', 1)
      LEFT JOIN pgq_rate r ON r.scope = 'key' AND r.name = looked.key AND r.limited_at = l.updated_at AND l.rate IS NOT NULL
     CROSS JOIN LATERAL (
           (SELECT 1
              FROM pgq_queue q
             WHERE looked.key <> '' AND q.queue = looked.queue AND q.key = looked.key
               AND q.priority = (SELECT priority FROM best) AND q.position > looked.low
               AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NOT NULL
             ORDER BY q.queue, q.key, q.priority, q.position LIMIT 1)
            UNION ALL
           (SELECT 1
              FROM pgq_queue q
             WHERE looked.key = '' AND q.queue = looked.queue
               AND q.priority = (SELECT priority FROM best) AND q.position > looked.low
               AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
             ORDER BY q.queue, q.priority, q.position LIMIT 1)) ready
     WHERE NOT (coalesce(l.strict, false) AND EXISTS (
               SELECT FROM pgq_queue q
                WHERE q.key = looked.key AND q.attempts > 0 AND (q.run_after IS NOT NULL OR q.parked IS NOT NULL)))
       AND (l.rate IS NULL OR (l.rate > 0 AND coalesce(r.not_before <= clock_timestamp(), true)))
       AND (l.concurrency IS NULL OR l.concurrency > (
           WITH RECURSIVE s (strand, n) AS (
               (SELECT q.strand, 1 FROM pgq_queue q WHERE q.key = looked.key AND q.strand IS NOT NULL AND q.strand > bound.low
                 ORDER BY q.strand LIMIT 1)
                UNION ALL
               SELECT (SELECT q.strand FROM pgq_queue q WHERE q.key = looked.key AND q.strand IS NOT NULL AND q.strand > s.strand
                        ORDER BY q.strand LIMIT 1), s.n + 1
                 FROM s WHERE s.strand IS NOT NULL AND s.n < l.concurrency)
           SELECT count(strand) FROM s))
     LIMIT {lanes}
)
