"""A PostgreSQL server without an administrator: for the demo, the tests and for trying things.

::

    with Server("some/folder") as server:      # starts it, or joins the one that runs there
        psycopg.connect(server.dsn)

    python -m pgq.contrib.embedded start --data some/folder

The folder keeps its databases for the next start. ``Server()`` without a folder is a throwaway one: stopped and
deleted by `Server.stop`, or by the next throwaway server if this process is killed first.

Nothing listens on TCP. The socket lies in a directory that only the server's own user (and root) can enter, and that is
the authentication. This module runs ``initdb`` and ``pg_ctl`` itself, because the PyPI packages that bring the binaries
create system users, open the permissions of parent directories and trust a pid that may be another process's by now.
"""

from pgq.contrib.embedded.binaries import ServerError, all_binaries, find_binaries, major_version
from pgq.contrib.embedded.server import Server, database_from_url

__all__ = [
    "Server",
    "ServerError",
    "all_binaries",
    "database_from_url",
    "find_binaries",
    "major_version",
]
