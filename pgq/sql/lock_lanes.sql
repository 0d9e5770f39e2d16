-- Locks the lanes, so that nobody gives a task back while their watermarks are being moved (see release.sql).
-- Returns them.
SELECT queue, priority FROM pgq_lane WHERE low < %(safe)s ORDER BY queue, priority FOR UPDATE
