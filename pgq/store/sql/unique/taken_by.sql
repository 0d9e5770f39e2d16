-- Returns the task that has taken a unique key for a time which is not over.
SELECT task FROM pgq_unique WHERE key = %(key)s AND until > clock_timestamp()
