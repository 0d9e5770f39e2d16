-- Puts a new task in the place of one that does not run, under its id. It is deleted and inserted, so that the trigger makes
-- the lane of its queue and key; when it was enqueued, its attempts and its history stay. `position`: its own where it waits
-- in the same lane as before, so that to be replaced again and again does not keep it from its turn; else a new one.
WITH old AS (
    DELETE FROM pgq_queue WHERE id = %s AND lock IS NULL
    RETURNING position, enqueued_at, attempts, crashes, history
)
INSERT INTO pgq_queue ({columns}, position, enqueued_at, attempts, crashes, history)
SELECT {values}, {position}, old.enqueued_at, old.attempts, old.crashes, old.history
  FROM old
