-- Marks this moment, and returns whether that is new: a release is marked once.
SELECT pgq_mark(%(label)s::text, %(kind)s::text, %(author)s::text)
