-- Returns the next {limit} lanes of keys in use behind one, with the position of the first ready row; NULL: there is none.
SELECT k.priority, k.queue, k.key, k.low, (
           SELECT q.position
             FROM pgq_queue q
            WHERE q.queue = k.queue AND q.key = k.key AND q.priority = k.priority AND q.position > k.low
              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NOT NULL
            ORDER BY q.queue, q.key, q.priority, q.position
            LIMIT 1) AS first
  FROM (SELECT *
          FROM pgq_keyed
         WHERE idle_since IS NULL
           AND (priority, queue, key) > (%(priority)s::smallint, %(queue)s::text, %(key)s::text)
         ORDER BY priority, queue, key
         LIMIT {limit}) k
