"""Signatures: bound to the row, safe through rotation, and refused whatever is altered."""

from __future__ import annotations

import itertools
import math
import types
from hashlib import blake2b, sha256
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pgq import codec
from pgq.codec import signing
from pgq.codec.stored import StoredText
from pgq.errors import NotAllowed
from pgq.ground.ids import new_id
from pgq.records import Claim, NewTask

K1, K2, K3 = "first-key" * 6, "second-key" * 6, "third-key" * 6

pytestmark = pytest.mark.usefixtures("keys")


@pytest.fixture
def keys() -> Any:
    with override_settings(SECRET_KEY=K1, SECRET_KEY_FALLBACKS=[]):
        yield


TASK = NewTask(
    id=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    func="app.tasks.f",
    args="[1, 2]",
    kwargs='{"a": 1}',
    options='{"save": false}',
    queue="mail",
    group="g",
    hook="app.hooks.h",
    timeout=60.0,
    max_attempts=3,
)


def claim(task: NewTask, **changes: Any) -> Claim:
    """Return the task as a worker claims it."""
    names = Claim._fields
    values: dict[str, Any] = dict.fromkeys(names)
    values |= {name: value for name, value in task._asdict().items() if name in names}
    values["signature"] = signing.sign_task(task)
    return Claim(**(values | changes))


def test_known_message_and_key() -> None:
    """Rows outlive releases: this must not change without a new version in the message."""
    key = sha256(b"pgq.codec.signing" + K1.encode()).digest()
    message = b"\0".join(
        [b"pgq1.task", TASK.id.hex.encode(), b"mail", b"app.tasks.f", b"=app.hooks.h", b"=g", b"60.0", b"3", b"[1, 2]",
         b'{"a": 1}', b'{"save": false}']
    )  # fmt: skip
    assert signing.sign_task(TASK) == blake2b(message, key=key, digest_size=32).digest()
    bare = NewTask(id=TASK.id, func="f")
    message = b"\0".join(
        [b"pgq1.task", TASK.id.hex.encode(), b"default", b"f", b"", b"", b"", b"1", b"[]", b"{}", b"{}"]
    )
    assert signing.sign_task(bare) == blake2b(message, key=key, digest_size=32).digest()


def test_own_rows_verify() -> None:
    assert signing.verify_claim(claim(TASK))
    assert signing.verify_claim(claim(NewTask(id=new_id(), func="f")))
    assert signing.verify_claim(claim(TASK, signature=bytes(signing.sign_task(TASK))))


OTHER = {
    "id": new_id(),
    "queue": "other",
    "func": "os.system",
    "hook": "os.system",
    "group": "h",
    "timeout": 60.5,
    "max_attempts": 0,
    "args": "[1, 3]",
    "kwargs": "{}",
    "options": "{}",
    "key": "another's",
}
NULLS = [("hook", None, ""), ("group", None, ""), ("timeout", None, 60.0)]


@pytest.mark.parametrize("name", OTHER)
def test_each_column_is_covered(name: str) -> None:
    assert not signing.verify_claim(claim(TASK, **{name: OTHER[name]}))


@pytest.mark.parametrize(("name", "one", "other"), NULLS)
def test_null_is_not_the_empty_text(name: str, one: Any, other: Any) -> None:
    for before, after in ((one, other), (other, one)):
        task = TASK._replace(**{name: before})
        assert signing.verify_claim(claim(task))
        assert not signing.verify_claim(claim(task, **{name: after}))


def test_operators_may_change_the_rest() -> None:
    assert signing.verify_claim(claim(TASK, priority=9, position=5, attempts=2, crashes=1, name="x", schedule=4))


def test_payloads_cannot_be_swapped() -> None:
    one, two = TASK, TASK._replace(id=new_id(), args='["other"]')
    assert not signing.verify_claim(claim(one, signature=signing.sign_task(two)))
    assert not signing.verify_claim(claim(two, signature=signing.sign_task(one)))
    assert not signing.verify_claim(claim(one, args=two.args))


def test_text_cannot_move_between_columns() -> None:
    texts = ("queue", "func", "hook", "group", "args", "kwargs", "options")
    task = TASK._replace(**dict.fromkeys(texts, "ab"))
    for one, other in itertools.permutations(texts, 2):
        assert not signing.verify_claim(claim(task, **{one: "abb", other: "a"})), (one, other)
        assert not signing.verify_claim(claim(task, **{one: "ab=", other: ""})), (one, other)


def test_each_flipped_bit_is_seen() -> None:
    good = signing.sign_task(TASK)
    assert len(good) == 32
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert not signing.verify_claim(claim(TASK, signature=bytes(bad)))


@pytest.mark.parametrize("signature", [None, b"", b"\0" * 32, b"x"])
def test_missing_or_short_signature(signature: bytes | None) -> None:
    assert not signing.verify_claim(claim(TASK, signature=signature))


def test_truncated_or_lengthened_signature() -> None:
    good = signing.sign_task(TASK)
    for signature in (good[:-1], good[:16], good + b"\0", good.hex().encode()):
        assert not signing.verify_claim(claim(TASK, signature=signature))


def test_signature_made_without_our_derivation() -> None:
    message = b"\0".join(str(value).encode() for value in ("pgq1.task", TASK.id.hex, "mail"))
    for key in (K1.encode(), sha256(K1.encode()).digest()):
        assert not signing.verify_claim(claim(TASK, signature=blake2b(message, key=key, digest_size=32).digest()))


def test_rotation() -> None:
    row = claim(TASK)
    with override_settings(SECRET_KEY=K2):
        assert not signing.verify_claim(row)
        assert signing.sign_task(TASK) != row.signature
    with override_settings(SECRET_KEY=K2, SECRET_KEY_FALLBACKS=[K3, K1]):
        assert signing.verify_claim(row)
        new = claim(TASK)
        assert signing.verify_claim(new)
    assert not signing.verify_claim(new), "fallbacks only verify"
    with override_settings(SECRET_KEY=K3, SECRET_KEY_FALLBACKS=[K2]):
        assert not signing.verify_claim(row)
        assert signing.verify_claim(new)


def test_key_as_bytes_is_the_same_key() -> None:
    row = claim(TASK)
    with override_settings(SECRET_KEY=K1.encode()):
        assert signing.verify_claim(row)


def test_empty_keys_are_refused() -> None:
    blob = signing.sign_blob(b"x")
    row = claim(TASK)
    for empty in ("", b"", None):
        with override_settings(SECRET_KEY=empty):
            for call in (
                lambda: signing.sign_task(TASK),
                lambda: signing.verify_claim(row),
                lambda: signing.sign_blob(b"x"),
                lambda: signing.unsign_blob(blob),
                lambda: signing.sign_schedule(**SCHEDULE),
            ):
                with pytest.raises(ImproperlyConfigured):
                    call()
        with override_settings(SECRET_KEY=K2, SECRET_KEY_FALLBACKS=[empty]), pytest.raises(ImproperlyConfigured):
            signing.verify_claim(row)


@pytest.mark.parametrize("timeout", [1, 0.1, 1e-9, 1e300, 123456789.123456789, math.inf, 3.0000000000000004])
def test_timeout_survives_the_table(pg_dsn: str, timeout: float) -> None:
    task = TASK._replace(timeout=timeout)
    with psycopg.connect(pg_dsn) as connection:
        row = connection.execute("SELECT %s::double precision", [timeout]).fetchone()
    assert row is not None
    assert signing.verify_claim(claim(task, timeout=row[0]))


@pytest.fixture(scope="module")
def connection(pg_dsn: str) -> Any:
    with psycopg.connect(pg_dsn, autocommit=True) as connection:
        yield connection


text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=10)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.binary(max_size=9) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@hypothesis_settings(deadline=None)
@given(
    func=text,
    queue=text,
    hook=st.none() | text,
    group=st.none() | text,
    timeout=st.none() | st.floats(min_value=0, exclude_min=True) | st.integers(1, 10**9),
    max_attempts=st.integers(0, 2**31 - 1),
    args=st.lists(json_values, max_size=3),
    kwargs=st.dictionaries(text, json_values, max_size=3),
    compress=st.booleans(),
)
def test_signature_survives_the_table(connection: Any, args: Any, kwargs: Any, compress: bool, **columns: Any) -> None:
    """Over the text enqueued, verified over the text that PostgreSQL gives back."""
    args_text, kwargs_text = codec.encode_args(tuple(args), kwargs, strict=False, compress=compress)
    task = NewTask(id=new_id(), args=args_text, kwargs=kwargs_text, options='{"save": true, "chain": [1]}', **columns)
    stored = connection.execute(
        'SELECT %s::uuid id, %s::text func, %s::text queue, %s::text hook, %s::text "group", %s::float8 timeout,'
        " %s::integer max_attempts, %s::text::jsonb::text args, %s::text::jsonb::text kwargs,"
        " %s::text::jsonb::text options, %s::bytea signature",
        [task.id, task.func, task.queue, task.hook, task.group, task.timeout, task.max_attempts, task.args,
         task.kwargs, task.options, signing.sign_task(task)],
    )  # fmt: skip
    row = dict(zip([column.name for column in stored.description], stored.fetchone(), strict=True))
    assert signing.verify_claim(claim(task, **row))


# --- schedules ---

SCHEDULE: dict[str, Any] = {
    "func": "app.tasks.f", "hook": None, "args": "[1]", "kwargs": "{}", "options": "{}", "queue": None,
}  # fmt: skip


def test_schedule() -> None:
    signature = signing.sign_schedule(**SCHEDULE)
    assert signing.verify_schedule(signature, **SCHEDULE)
    assert not signing.verify_schedule(None, **SCHEDULE)
    assert not signing.verify_schedule(b"", **SCHEDULE)
    for name in SCHEDULE:
        for value in ("", "other"):
            assert not signing.verify_schedule(signature, **(SCHEDULE | {name: value})), name
    with override_settings(SECRET_KEY=K2):
        assert not signing.verify_schedule(signature, **SCHEDULE)
    with override_settings(SECRET_KEY=K2, SECRET_KEY_FALLBACKS=[K1]):
        assert signing.verify_schedule(signature, **SCHEDULE)


def test_one_kind_does_not_serve_for_another() -> None:
    task = NewTask(id=TASK.id, func="f")
    message = b"\0".join([task.id.hex.encode(), b"default", b"f", b"", b"", b"", b"1", b"[]", b"{}", b"{}"])
    stolen = bytes.fromhex(signing.sign_blob(message).partition(":")[0])
    assert not signing.verify_claim(claim(task, signature=stolen))
    assert not signing.verify_schedule(signing.sign_task(TASK), **SCHEDULE)
    assert not signing.verify_claim(claim(TASK, signature=signing.sign_schedule(**SCHEDULE)))


# --- rows as model instances ---


def row(record: Any, **changes: Any) -> types.SimpleNamespace:
    """Return what stands for a model instance: ids in hex, stored values as they were loaded."""
    values = dict(record) | {"id": TASK.id.hex, "signature": memoryview(record["signature"])} | changes
    for name in ("args", "kwargs", "options"):
        if isinstance(values[name], str):
            values[name] = StoredText(values[name])
    values["task_key"] = values.pop("key", None)
    return types.SimpleNamespace(**values)


def test_rows() -> None:
    record = TASK._asdict() | {"signature": signing.sign_task(TASK)}
    assert signing.verify_row(row(record))
    assert not signing.verify_row(row(record, signature=None))
    for name in set(OTHER) - {"id"}:
        assert not signing.verify_row(row({**record, name: OTHER[name]})), name
    assert not signing.verify_row(row(record, id=new_id().hex))
    assert not signing.verify_row(row(record, args=[1, 2])), "set by hand"
    deferred = row(record)
    del deferred.kwargs
    assert not signing.verify_row(deferred)


def test_schedule_rows() -> None:
    record = SCHEDULE | {"signature": signing.sign_schedule(**SCHEDULE)}
    assert signing.verify_schedule_row(row(record))
    assert not signing.verify_schedule_row(row(record, signature=None))
    for name in SCHEDULE:
        assert not signing.verify_schedule_row(row(record, **{name: "other"})), name


# --- results ---

SEALED = [codec.encode(value) for value in (len, [int], {"a": [print]}, {1: len}, (int,))]


@pytest.mark.parametrize("text", SEALED)
def test_sealed_results(connection: Any, text: str) -> None:
    sealed = signing.seal(TASK.id, text)
    assert sealed != text
    assert connection.execute("SELECT %s::text::jsonb::text", [sealed]).fetchone() == (sealed,)
    assert signing.unseal(TASK.id, sealed) == (text, True)
    assert signing.unseal(new_id(), sealed) == (text, False)
    assert signing.unseal(TASK.id, text) == (text, False)
    assert signing.unseal(TASK.id, sealed.replace("builtins", "posixnow"))[1] is False
    assert signing.unseal(TASK.id, sealed.replace('"$sealed": "', '"$sealed": "0')[:-3] + '"}')[1] is False
    with override_settings(SECRET_KEY=K2):
        assert signing.unseal(TASK.id, sealed) == (text, False)
    with override_settings(SECRET_KEY=K2, SECRET_KEY_FALLBACKS=[K1]):
        assert signing.unseal(TASK.id, sealed) == (text, True)


@pytest.mark.parametrize(
    "value", [None, "$enum", '{"$enum": ', ['{"$class": '], {"$class": 1}, {"value": 1, "$sealed": "0" * 64}, (1, b"a")]
)
def test_results_that_need_no_seal(value: Any) -> None:
    text = codec.encode(value)
    assert signing.seal(TASK.id, text) == text
    assert signing.unseal(TASK.id, text) == (text, False)
    assert codec.decode(text) == value


# --- blobs ---


@given(st.binary(max_size=50))
def test_blob(data: bytes) -> None:
    with override_settings(SECRET_KEY=K1):
        assert signing.unsign_blob(signing.sign_blob(data)) == data


def test_altered_blobs() -> None:
    good = signing.sign_blob(b"payload")
    for index, character in itertools.product(range(len(good)), "0Az:="):
        bad = good[:index] + character + good[index + 1 :]
        try:  # hex in capitals, or bits behind the end of base64: another spelling of the same bytes
            assert signing.unsign_blob(bad) == b"payload"
        except NotAllowed:
            assert bad != good
        else:
            assert bad.lower()[:64] == good[:64]
    for bad in ("", ":", "cGF5bG9hZA==", good[1:], good[:-4], good.partition(":")[0], good + "AAAA", "é:é", good + ":"):
        with pytest.raises(NotAllowed):
            signing.unsign_blob(bad)


def test_blob_rotation() -> None:
    blob = signing.sign_blob(b"x")
    with override_settings(SECRET_KEY=K2, SECRET_KEY_FALLBACKS=[K1]):
        assert signing.unsign_blob(blob) == b"x"
    with override_settings(SECRET_KEY=K2), pytest.raises(NotAllowed):
        signing.unsign_blob(blob)


def test_pickles_are_signed_with_it() -> None:
    stored = codec.encode(ValueError("x"), allow_pickle=True, sign=signing.sign_blob)
    kept = codec.decode(stored, trusted=True, allow_pickle=True, unsign=signing.unsign_blob)
    assert repr(kept) == "ValueError('x')"
    assert codec.decode_for_display(stored).startswith("<pickled ")
    with override_settings(SECRET_KEY=K2), pytest.raises(NotAllowed):
        codec.decode(stored, trusted=True, allow_pickle=True, unsign=signing.unsign_blob)
