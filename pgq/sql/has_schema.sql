-- Whether pgq's tables are there. (A statement that names one which is not there fails.)
SELECT to_regclass('pgq_schema') IS NOT NULL
