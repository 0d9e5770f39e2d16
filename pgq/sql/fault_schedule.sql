-- Notes on a schedule why it could not be fired, and tries it again later. It stops no other.
UPDATE pgq_schedule
   SET error = %(error)s, next_run = greatest(next_run, statement_timestamp()) + interval '1 minute'
 WHERE id = %(id)s
