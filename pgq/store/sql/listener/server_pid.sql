-- Returns the pid of the server's process that executes this.
SELECT pg_backend_pid()
