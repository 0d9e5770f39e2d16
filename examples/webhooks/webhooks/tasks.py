import hashlib
import hmac
import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from django.conf import settings

from pgq.errors import Discard
from pgq.tasks import task


# Each subscriber gets five calls a second at most, and one that is slow or down keeps no other one waiting. The pauses
# of this example are short; in earnest: retry_backoff={"kind": "exponential", "base": 30, "max": 6 * 3600}.
@task(
    queue="webhooks",
    key="subscriber",
    concurrency=2,
    rate="5/s",
    timeout=15,
    max_attempts=4,
    retry_backoff={"kind": "exponential", "base": 0.3, "factor": 2, "max": 5, "jitter": 0.2},
    retry_on=["builtins.OSError"],  # No connection, too slow, an answer of 4xx or 5xx; no faults of this function.
)
def deliver(subscriber: str, event: str, payload: dict[str, Any]) -> int:
    """POST an event to a subscriber. It may arrive twice, as any call over a network: the id of the event tells."""
    body = json.dumps({"event": event, **payload}).encode()
    signature = hmac.new(settings.SECRET_KEY.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "Idempotency-Key": event, "X-Signature": signature}
    request = Request(f"{settings.RECEIVER}/{subscriber}/", body, headers)
    try:
        with urlopen(request, timeout=10) as response:
            return int(response.status)
    except HTTPError as error:
        with error:
            if error.code == 410:
                raise Discard(f"{subscriber} wants no more events") from None
            raise
