"""Runs a script that ends when whoever started it does, even by SIGKILL: ``python -m demo.leash manage.py ...``.

The starter keeps the other end of the pipe that is our stdin, and the kernel closes it when the starter dies.
"""

import os
import runpy
import signal
import sys
import threading
import time

#: Seconds to end by oneself before the rest of the process group is killed too.
PATIENCE = 10.0


def end_with_starter() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_starter, daemon=True).start()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
