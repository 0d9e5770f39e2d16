-- Returns whether the checks were last run more than so many seconds ago.
SELECT coalesce(max(checked_at) < clock_timestamp() - %(age)s * interval '1 second', true) FROM pgq_finding
