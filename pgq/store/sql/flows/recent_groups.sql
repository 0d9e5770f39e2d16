-- Returns the groups among the {limit} tasks of either table that were enqueued last: how many of their tasks are there, and how
-- many of those are live, have succeeded and have failed. The group with the newest task first.
SELECT "group", count(*) AS tasks, count(*) FILTER (WHERE success IS NULL) AS live, count(*) FILTER (WHERE success) AS succeeded,
       count(*) FILTER (WHERE NOT success) AS failed, max(enqueued_at) AS last
  FROM ((SELECT id, "group", NULL::boolean AS success, enqueued_at FROM pgq_queue ORDER BY id DESC LIMIT {limit})
        UNION ALL
        (SELECT id, "group", success, enqueued_at FROM pgq_task ORDER BY id DESC LIMIT {limit})) newest
 WHERE "group" IS NOT NULL
 GROUP BY "group"
 ORDER BY max(id::text) DESC
 LIMIT %(most)s
