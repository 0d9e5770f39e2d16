-- Sets settings for the session, if the client talks to the server itself. A pooler gives its clients another pid than the
-- server's, and what is set there might stay for another client. Returns a row for each setting; none behind a pooler.
SELECT set_config(name, value, false)
  FROM unnest(%(names)s::text[], %(values)s::text[]) AS pin (name, value)
 WHERE pg_backend_pid() = %(pid)s
