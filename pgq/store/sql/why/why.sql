-- Returns why a task is not running, or what became of it; see migrations_sql/0006_why.up.sql.
SELECT code, sentence, facts::text AS facts FROM pgq_why(%(id)s)
