-- Deletes a schedule that was to run once, and has.
DELETE FROM pgq_schedule WHERE id = %(id)s
