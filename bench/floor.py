"""A worker of the floor: ``python -m bench.floor 512``. See `bench.systems.floor`."""

import sys

from bench.systems.floor import loop

if __name__ == "__main__":
    loop(int(sys.argv[1]))
