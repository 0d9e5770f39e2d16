-- Moves a schedule on to its next slot, if it still stands at the slot that was read. Returns a row if it did.
UPDATE pgq_schedule
   SET next_run = %(next_run)s, repeats = %(repeats)s, day = %(day)s, wall_time = %(wall_time)s,
       task = coalesce(%(task)s, task), last_slot = coalesce(%(last_slot)s, last_slot), error = NULL, retry_at = NULL
 WHERE id = %(id)s AND next_run = %(slot)s
RETURNING id
