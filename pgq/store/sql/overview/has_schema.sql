-- Returns whether pgq's tables are there. (A statement that names a missing table fails.)
SELECT to_regclass('pgq_schema') IS NOT NULL
