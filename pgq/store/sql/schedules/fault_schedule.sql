-- Writes to a schedule why it could not be fired, and when it is tried again. Its slot stays, and other schedules fire.
UPDATE pgq_schedule
   SET error = %(error)s, retry_at = statement_timestamp() + make_interval(secs => %(pause)s)
 WHERE id = %(id)s
