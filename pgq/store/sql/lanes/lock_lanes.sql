-- Locks the lanes with a watermark below `safe`, and returns them: while upkeep moves their watermarks, no session makes
-- a claimed task ready again (see kept_places.sql).
SELECT queue, priority FROM pgq_lane WHERE low < %(safe)s ORDER BY queue, priority FOR UPDATE
