"""`python -m pgq.contrib.embedded`: start, stop and remove a server, or print where its programs are."""

from __future__ import annotations

import argparse
import sys

from pgq.contrib.embedded.binaries import ServerError, find_binaries
from pgq.contrib.embedded.server import Server


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pgq.contrib.embedded", description="A PostgreSQL server in a folder."
    )
    parser.add_argument(
        "command",
        choices=["start", "stop", "status", "dsn", "url", "remove", "binaries"],
        help="dsn and url print how to connect; remove deletes the databases; binaries prints which PostgreSQL it is",
    )
    parser.add_argument("--data", default=".pgq", metavar="DIR", help="the folder (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        if options.command == "binaries":
            answer = str(find_binaries())
        else:
            server = Server(options.data)
            if options.command in ("start", "stop", "remove"):
                getattr(server, options.command)()
            state = f"PostgreSQL {server.major} {'runs' if server.running else 'does not run'} in {server.home}"
            answer = str(getattr(server, options.command)) if options.command in ("dsn", "url") else state
            if options.command == "status" and not server.running:
                raise ServerError(state)
    except ServerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{answer}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
