"""Signatures: which rows Python wrote, and which results a worker."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable
from functools import cache
from hashlib import blake2b, sha256
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from pgq.codec.stored import stored_text
from pgq.errors import NotAllowed
from pgq.records import Claim, NewTask, Signed, TaskState

# The kind comes first in each message, so that no signature serves for another kind. The number is the version.
_TASK, _SCHEDULE, _BLOB, _RESULT = "pgq1.task", "pgq1.schedule", "pgq1.blob", "pgq1.result"
_DIGEST = "pgq1.digest"

#: Tags that import, load or unpickle when they are read: a result that holds one is sealed.
_NEEDS_TRUST = re.compile(r'\{"\$(?:enum|dataclass|namedtuple|callable|class|model|pickle)": ')
_SEAL_START, _SEAL_END = '{"value": ', re.compile(r', "\$sealed": "([0-9a-f]{64})"\}$')


def _derive(secret: str | bytes) -> bytes:
    """Return pgq's own key: what other code signs with SECRET_KEY must not verify in pgq, nor what pgq signs there."""
    if not secret:
        raise ImproperlyConfigured("SECRET_KEY and SECRET_KEY_FALLBACKS must hold no empty key: pgq signs with them")
    return sha256(b"pgq.codec.signing" + (secret.encode() if isinstance(secret, str) else secret)).digest()


@cache
def _keys() -> tuple[bytes, ...]:
    """Return the keys: the one that signs, then those that only verify. Kept until a setting changes, since reading
    Django's settings costs as much as a signature."""
    return tuple(_derive(secret) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


def check_keys() -> None:
    """Make sure that there are keys and none is empty.

    Raises:
        ImproperlyConfigured: One is; the message names the settings.
    """
    _keys()


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        _keys.cache_clear()


setting_changed.connect(_forget)


def _signing_key() -> bytes:
    return _keys()[0]


def _verifies(message: bytes, signature: bytes | None) -> bool:
    """Whether one of the keys made the signature; in constant time, and false for None."""
    if signature is not None:
        # A loop: a generator would cost each task as much as half the digest.
        for key in _keys():
            if verify(message, signature, key):
                return True
    return False


def sign(message: bytes, key: bytes) -> bytes:
    """Return 32 bytes of keyed BLAKE2b: a MAC like HMAC-SHA256, in a third of the time, which each task pays twice."""
    return blake2b(message, key=key, digest_size=32).digest()


def verify(message: bytes, signature: bytes, key: bytes) -> bool:
    """Whether the key made that signature for that message; in constant time."""
    return hmac.compare_digest(sign(message, key), signature)


def _fixed_part(
    queue: str, func: str, hook: str | None, group: str | None, timeout: float | None, max_attempts: int
) -> str:
    # NULL and the empty text are different rows, hence the "=". A timeout is double precision in the table, and its
    # repr is exact; as an int it would come back as a float.
    return (
        f"\0{queue}\0{func}\0{'' if hook is None else '=' + hook}"
        f"\0{'' if group is None else '=' + group}\0{'' if timeout is None else repr(float(timeout))}\0{max_attempts}"
    )


def _task_message(id: str, fixed: str, args: str, kwargs: str, options: str, key: str | None) -> bytes:
    # The options are JSON, which holds no NUL.
    keyed = "" if key is None else f"\0{key}"
    return f"{_TASK}\0{id}{fixed}\0{args}\0{kwargs}\0{options}{keyed}".encode()


def sign_task(task: NewTask) -> bytes:
    """Return the signature of a task about to be enqueued.

    Raises:
        ImproperlyConfigured: SECRET_KEY is empty.
    """
    fixed = _fixed_part(task.queue, task.func, task.hook, task.group, task.timeout, task.max_attempts)
    return sign(_task_message(task.id.hex, fixed, task.args, task.kwargs, task.options, task.key), _signing_key())


def signer_of_calls(model: NewTask) -> Callable[[str, str, str, str | None], bytes]:
    """Return what signs tasks that are like this one but for their id (32 hex digits), args, kwargs and key.

    Raises:
        ImproperlyConfigured: SECRET_KEY is empty.
    """
    fixed = _fixed_part(model.queue, model.func, model.hook, model.group, model.timeout, model.max_attempts)
    options, key = model.options, _signing_key()

    def sign_call(id: str, args: str, kwargs: str, task_key: str | None) -> bytes:
        return sign(_task_message(id, fixed, args, kwargs, options, task_key), key)

    return sign_call


def verify_claim(claim: Claim | TaskState | Signed) -> bool:
    """Whether Python code that has a key enqueued this very task; false for an unsigned row.

    Raises:
        ImproperlyConfigured: A key is empty.
    """
    if claim.signature is None:
        return False
    fixed = _fixed_part(claim.queue, claim.func, claim.hook, claim.group, claim.timeout, claim.max_attempts)
    message = _task_message(claim.id.hex, fixed, claim.args, claim.kwargs, claim.options, claim.key)
    return _verifies(message, claim.signature)


def sign_for_queue(task: Signed, queue: str) -> bytes:
    """Return the signature of a task that goes to another queue.

    Raises:
        NotAllowed: Its own is not good: it must not get a better one.
        ImproperlyConfigured: A key is empty.
    """
    if not verify_claim(task):
        raise NotAllowed("the signature does not fit the row: it was changed, or signed with a key not known here")
    fixed = _fixed_part(queue, task.func, task.hook, task.group, task.timeout, task.max_attempts)
    return sign(_task_message(task.id.hex, fixed, task.args, task.kwargs, task.options, task.key), _signing_key())


def _schedule_message(func: str, hook: str | None, args: str, kwargs: str, options: str, queue: str | None) -> bytes:
    parts = (
        _SCHEDULE,
        func,
        "" if hook is None else "=" + hook,
        args,
        kwargs,
        options,
        "" if queue is None else "=" + queue,
    )
    return "\0".join(parts).encode()


def sign_schedule(*, func: str, hook: str | None, args: str, kwargs: str, options: str, queue: str | None) -> bytes:
    """Return the signature of what a schedule enqueues. When it does so, and its name, are the operators' to change.

    Raises:
        ImproperlyConfigured: SECRET_KEY is empty.
    """
    return sign(_schedule_message(func, hook, args, kwargs, options, queue), _signing_key())


def verify_schedule(
    signature: bytes | None, *, func: str, hook: str | None, args: str, kwargs: str, options: str, queue: str | None
) -> bool:
    """Whether Python code that has a key made a schedule of exactly this; false for an unsigned one.

    Raises:
        ImproperlyConfigured: A key is empty.
    """
    return _verifies(_schedule_message(func, hook, args, kwargs, options, queue), signature)


def digest(text: str) -> str:
    """Return 16 hex digits, the same for equal texts. Without the key no guess at a text can be checked by them."""
    return sign(f"{_DIGEST}\0{text}".encode(), _signing_key()).hex()[:16]


def sign_blob(data: bytes) -> str:
    """Return the bytes as text with a signature: ``hex:base64``. They can be read without a key."""
    signature = sign(_BLOB.encode() + b"\0" + data, _signing_key())
    return f"{signature.hex()}:{base64.b64encode(data).decode()}"


def unsign_blob(text: str) -> bytes:
    """Return what `sign_blob` was given.

    Raises:
        NotAllowed: None of the project's keys signed it.
        ImproperlyConfigured: A key is empty.
    """
    signature, _, data_text = text.partition(":")
    try:
        data = base64.b64decode(data_text, validate=True)
        good = _verifies(_BLOB.encode() + b"\0" + data, bytes.fromhex(signature))
    except (binascii.Error, ValueError):
        good = False
    if not good:
        raise NotAllowed("a signed value was altered, or signed with a key that is not the project's")
    return data


def verify_row(row: Any) -> bool:
    """Whether Python code that has a key enqueued this `QueuedTask` or `Task`, unchanged since.

    Raises:
        ImproperlyConfigured: A key is empty.
    """
    args, kwargs, options = (stored_text(row, name) for name in ("args", "kwargs", "options"))
    if row.signature is None or args is None or kwargs is None or options is None:
        return False
    fixed = _fixed_part(row.queue, row.func, row.hook, row.group, row.timeout, row.max_attempts)
    message = _task_message(UUID(row.id).hex, fixed, args, kwargs, options, row.task_key)
    return _verifies(message, bytes(row.signature))


def verify_schedule_row(row: Any) -> bool:
    """Whether Python code that has a key made this `Schedule`, and what it enqueues is unchanged.

    Raises:
        ImproperlyConfigured: A key is empty.
    """
    args, kwargs, options = (stored_text(row, name) for name in ("args", "kwargs", "options"))
    if row.signature is None or args is None or kwargs is None or options is None:
        return False
    return verify_schedule(
        bytes(row.signature), func=row.func, hook=row.hook, args=args, kwargs=kwargs, options=options, queue=row.queue
    )


def seal(id: UUID, text: str) -> str:
    """Return a result with the proof, which `unseal` checks, that a worker wrote it for this task.

    Only results with tags that import, load or unpickle are changed: ``{"value": ..., "$sealed": signature}``.
    """
    if not _NEEDS_TRUST.search(text):
        return text
    signature = sign(f"{_RESULT}\0{id.hex}\0{text}".encode(), _signing_key())
    return f'{_SEAL_START}{text}, "$sealed": "{signature.hex()}"}}'


def unseal(id: UUID, text: str) -> tuple[str, bool]:
    """Return the text that `seal` was given, and whether it may be trusted."""
    end = _SEAL_END.search(text) if text.startswith(_SEAL_START) else None
    if end is None:
        return text, False
    inner = text[len(_SEAL_START) : end.start()]
    return inner, _verifies(f"{_RESULT}\0{id.hex}\0{inner}".encode(), bytes.fromhex(end[1]))


def signed(task: NewTask) -> NewTask:
    """Return the task with its signature."""
    # As _replace(), in half the time, and each task pays for it. The signature is the last column.
    return NewTask._make((*task[:-2], sign_task(task), task[-1]))
