-- Writes another task as the last one of a schedule: the one that has the unique key of its slot.
UPDATE pgq_schedule SET task = %(task)s WHERE id = %(id)s
