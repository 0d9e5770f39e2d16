-- Returns the queues and functions that have rows of these times already.
SELECT m.span, m.at, m.queue, m.func
  FROM unnest(%(spans)s::smallint[], %(ats)s::timestamptz[]) AS asked (span, at)
  JOIN pgq_metric m ON m.span = asked.span AND m.at = asked.at
