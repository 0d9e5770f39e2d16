-- Deletes what rates have counted and that counts no more: nothing was claimed for two periods; without a limit, for a day.
DELETE FROM pgq_rate r
 WHERE r.updated_at < clock_timestamp() - interval '1 second' * coalesce(2 * (
           SELECT l.period FROM pgq_limit l
            WHERE l.scope = r.scope AND l.name = CASE r.scope WHEN 'queue' THEN r.name ELSE split_part(r.name, ':', 1) END
       ), 86400)
