-- Returns whether claims have to look for lanes of keys, or for queues with a limit.
SELECT EXISTS (SELECT FROM pgq_keyed WHERE idle_since IS NULL) OR EXISTS (SELECT FROM pgq_limit WHERE scope = 'queue')
