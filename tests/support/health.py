"""Asking /health."""

from __future__ import annotations

import http.client


def ask(port: int, method: str = "GET", path: str = "/health") -> tuple[int, bytes]:
    """Ask once; 0: there is no answer."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        asking.request(method, path)
        answer = asking.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        asking.close()
