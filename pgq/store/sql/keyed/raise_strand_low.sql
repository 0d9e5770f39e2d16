-- Moves the watermark of strands up to just below the lowest strand that runs, but never past `safe`, the last one of which
-- upkeep knows that no unfinished transaction holds it or one below. A strand above is counted by claims; what lies at or
-- below the watermark is not looked at. The search begins at the old watermark, so it passes each dead entry once.
-- No clock has a say in this: leases of a clock that was set back, or that a long outage left, are as good as others.
SELECT setval('pgq_strand_low', least(%(safe)s::bigint, coalesce((
           SELECT q.strand - 1 FROM pgq_queue q WHERE q.strand > low.last_value ORDER BY q.strand LIMIT 1), %(safe)s::bigint)))
  FROM pgq_strand_low low
 WHERE low.last_value < %(safe)s
