-- Locks the lanes, so that no session makes a claimed task ready while their watermarks are being moved (see kept_places.sql).
-- Returns them.
SELECT queue, priority FROM pgq_lane WHERE low < %(safe)s ORDER BY queue, priority FOR UPDATE
