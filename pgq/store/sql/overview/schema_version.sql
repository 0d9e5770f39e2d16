-- Returns the number of the newest file of migrations_sql that was run, by manage.py migrate or by psql.
SELECT coalesce(max(version), 0) FROM pgq_schema
