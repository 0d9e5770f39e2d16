-- Cancels tasks, queued or running, in the order of their ids, so that two callers cannot deadlock.
-- Returns the id of each and which it was.
SELECT c.id, pgq_cancel(c.id)
  FROM (SELECT id FROM unnest(%(ids)s::uuid[]) AS id ORDER BY id) c
