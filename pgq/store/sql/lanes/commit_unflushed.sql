-- Makes the commit of this transaction return before it is flushed to disk.
SET LOCAL synchronous_commit = off
