"""The codec: every tag there and back, what PostgreSQL does to the text, and values that mean harm."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import enum
import functools
import io
import json
import math
import operator
import os
import pathlib
import pickle
import sys
import types
import zlib
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.http import QueryDict
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgq import codec
from pgq.codec import NotDecodable, ObjectGone, Unstorable
from pgq.errors import NotAllowed, NotStorable

LIMIT = 1_000_000
BERLIN = ZoneInfo("Europe/Berlin")


class Color(enum.Enum):
    RED = "r"
    CRIMSON = "r"  # noqa: PIE796  # an alias
    BLUE = ("b", 1)


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Size(models.TextChoices):
    SMALL = "S", "small"


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: Any = None
    label: str = dataclasses.field(init=False, default="none")


@dataclasses.dataclass
class Watched:
    """Would notice if it were made by calling it."""

    made: dataclasses.InitVar[int]
    value: list[int] = dataclasses.field(default_factory=list)

    def __post_init__(self, made: int) -> None:
        raise AssertionError("decoding must not call __init__")


@dataclasses.dataclass
class Named(dict):  # type: ignore[type-arg]
    x: int = 0


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Plain:
    """An object without a tag, for pickle."""

    def __init__(self, value: int = 1) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and other.value == self.value

    def method(self) -> None: ...

    @classmethod
    def make(cls) -> Plain:
        return cls()

    @staticmethod
    def static() -> None: ...


class Child(Plain): ...


def function() -> None: ...


@functools.lru_cache
def cached() -> None: ...


def sign(data: bytes) -> str:
    return "signed:" + base64.b64encode(data).decode()


def unsign(text: str) -> bytes:
    head, _, data = text.partition(":")
    if head != "signed":
        raise NotAllowed("bad signature")
    return base64.b64decode(data)


def results(value: Any) -> Any:
    """There and back as a result."""
    return codec.decode(codec.encode(value, strict=False), trusted=True)


def same(left: Any, right: Any) -> bool:
    """Equality that tells 1 from True and 1.0, 0.0 from -0.0, a tuple from a list, and finds NaN the same as NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and same(sorted(left.items(), key=repr), sorted(right.items(), key=repr))
    if isinstance(left, set | frozenset):
        return same(sorted(left, key=repr), sorted(right, key=repr))
    if isinstance(left, float | complex | Decimal):
        return repr(left) == repr(right)
    if isinstance(left, dt.datetime | dt.time):
        return repr(left) == repr(right) and left.fold == right.fold
    if dataclasses.is_dataclass(left) and not isinstance(left, type):
        return all(same(getattr(left, field.name), getattr(right, field.name)) for field in dataclasses.fields(left))
    return bool(left == right)


@pytest.fixture(scope="module")
def connection(pg_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(pg_dsn, autocommit=True) as connection:
        yield connection


# --- values for hypothesis ---

any_text = st.text(st.characters(exclude_categories=()), max_size=12)
plain_text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
zones = st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=-3, seconds=7)), BERLIN, ZoneInfo("UTC")])
moments = st.builds(lambda at, fold: at.replace(fold=fold), st.datetimes(timezones=zones, allow_imaginary=True),
                    st.integers(0, 1))  # fmt: skip
atoms = (
    st.none() | st.booleans() | st.integers() | st.integers(-(10**900), 10**900) | st.floats() | any_text
    | plain_text | st.just("$") | st.just("$date")
)  # fmt: skip
keyables = (
    atoms.filter(lambda value: value == value)
    | moments | st.dates() | st.times() | st.timedeltas() | st.uuids() | st.binary(max_size=20)
    | st.decimals(allow_nan=False) | st.complex_numbers(allow_nan=False) | st.sampled_from([*Color, *Level, *Size])
    | st.builds(range, st.integers(), st.integers(), st.integers(1)) | st.builds(pathlib.PurePosixPath, plain_text)
    | st.sampled_from([function, len, Plain, Color, int, Plain.make, Access.READ | Access.WRITE, Access.READ])
)  # fmt: skip
values = st.recursive(
    atoms | keyables | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(any_text | st.just("$date"), inner, max_size=4)
        | st.dictionaries(keyables, inner, max_size=4)
        | st.frozensets(keyables, max_size=4) | st.sets(keyables, max_size=4)
        | st.builds(Point, inner, inner) | st.builds(Pair, inner, inner)
    ),
    max_leaves=12,
)  # fmt: skip


# --- canonical ---


@settings(max_examples=400, deadline=None)
@given(value=values)
@example(value={"b": 1, "aa": 2, "a": 3, "é": 4, "zz": 5, "\U0001f600": 6, "\uffff": 7, "abcd": 8, "": 9})
@example(value=['\x01\x08\x0b\x1f\x7f\x80\u2028"\\/\b\f\n\r\t', 1e22, -0.0, 0.1, 1.0, 1e-7, 123456789012345680.0])
@example(value=10**140_000)
def test_postgresql_prints_the_text_as_it_is(connection: psycopg.Connection[Any], value: Any) -> None:
    text = codec.encode(value, strict=False)
    assert connection.execute("SELECT %s::text::jsonb::text", [text]).fetchone() == (text,)


@settings(max_examples=100, deadline=None)
@given(args=st.lists(values, max_size=3), kwargs=st.dictionaries(any_text, values, max_size=3), compress=st.booleans())
def test_postgresql_prints_arguments_as_they_are(
    connection: psycopg.Connection[Any], args: list[Any], kwargs: dict[str, Any], compress: bool
) -> None:
    texts = codec.encode_args(tuple(args), kwargs, strict=False, compress=compress)
    row = connection.execute(
        "SELECT a::text, k::text, jsonb_typeof(a), jsonb_typeof(k)"
        " FROM (SELECT %s::text::jsonb, %s::text::jsonb) t(a, k)",
        texts,
    ).fetchone()
    assert row == (*texts, "array", "object")


def test_postgresql_stores_any_placeholder(connection: psycopg.Connection[Any]) -> None:
    text = codec.encode_result(lambda: "\0\ud800", limit=LIMIT)
    row = connection.execute("SELECT v::text, v -> '$unstorable' ->> 'reason' FROM (SELECT %s::jsonb) t(v)", [text])
    printed, reason = row.fetchone() or ("", "")
    assert printed == text
    assert "lambda" in reason


def test_canonical_rewrites_what_is_stored(connection: psycopg.Connection[Any]) -> None:
    """Tags in it stay tags, and what is added comes in its place."""
    value = {"when": dt.date(2024, 5, 6), "a": ["é" * 20_000, 1e-9, 1.5, None, True, -0.0], "zz": {"$x": 1}}
    text = codec.encode(value)
    assert codec.canonical(json.loads(text)) == text
    longer = codec.canonical({**json.loads(text), "b": "x"})
    assert connection.execute("SELECT %s::text::jsonb::text", [longer]).fetchone() == (longer,)
    assert codec.decode(longer) == {**value, "b": "x"}


@settings(deadline=None)
@given(value=values)
def test_canonical_text_is_its_own(value: Any) -> None:
    text = codec.encode(value, strict=False)
    assert codec.canonical(json.loads(text)) == text


# --- there and back ---


@settings(max_examples=400, deadline=None)
@given(values)
def test_round_trip(value: Any) -> None:
    assert same(results(value), value)


@settings(deadline=None)
@given(st.lists(values, max_size=3).map(tuple), st.dictionaries(any_text, values, max_size=3), st.booleans())
def test_round_trip_of_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], compress: bool) -> None:
    texts = codec.encode_args(args, kwargs, strict=False, compress=compress)
    assert same(codec.decode_args(*texts, trusted=True), (args, kwargs))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ([], "[]"),
        ({}, "{}"),
        ([1, True, None, 1.5, "é"], '[1, true, null, 1.5, "é"]'),
        ({"aa": 1, "b": [2]}, '{"b": [2], "aa": 1}'),
        (dt.datetime(2024, 5, 6, 7, 8), '{"$datetime": "2024-05-06T07:08:00"}'),
        (dt.datetime(2024, 5, 6, tzinfo=dt.UTC), '{"$datetime": "2024-05-06T00:00:00+00:00"}'),
        (
            dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
            '{"$datetime": ["2024-10-27T02:30:00+01:00", "Europe/Berlin", 1]}',
        ),
        (dt.date(2024, 5, 6), '{"$date": "2024-05-06"}'),
        (dt.time(1, 2, 3, 4), '{"$time": "01:02:03.000004"}'),
        (dt.time(1, tzinfo=BERLIN, fold=1), '{"$time": ["01:00:00", "Europe/Berlin", 1]}'),
        (dt.timedelta(days=-1, microseconds=5), '{"$timedelta": [-1, 0, 5]}'),
        (Decimal("1.10"), '{"$decimal": "1.10"}'),
        (UUID(int=5), '{"$uuid": "00000000-0000-0000-0000-000000000005"}'),
        (b"\0\xff", '{"$bytes": "AP8="}'),
        ((1, (2,)), '{"$tuple": [1, {"$tuple": [2]}]}'),
        ({3, 1, 2}, '{"$set": [1, 2, 3]}'),
        (frozenset({"a"}), '{"$frozenset": ["a"]}'),
        ({1: "a"}, '{"$dict": [[1, "a"]]}'),
        ({"$date": 1}, '{"$dict": [["$date", 1]]}'),
        (-0.0, '{"$float": "-0.0"}'),
        (1e22, '{"$float": "1e+22"}'),
        (1 + 2j, '{"$complex": [1.0, 2.0]}'),
        (range(1, 9, 2), '{"$range": [1, 9, 2]}'),
        (1 << 1024, f'{{"$int": "0x1{"0" * 256}"}}'),
        (-(1 << 1024), f'{{"$int": "-0x1{"0" * 256}"}}'),
        (pathlib.Path("/a/b"), '{"$path": ["Path", "/a/b"]}'),
        (pathlib.PureWindowsPath("c:/a"), '{"$path": ["PureWindowsPath", "c:\\\\a"]}'),
        (Color.RED, f'{{"$enum": ["{__name__}.Color", "RED"]}}'),
        (Size.SMALL, f'{{"$enum": ["{__name__}.Size", "SMALL"]}}'),
        (Level.LOW, f'{{"$enum": ["{__name__}.Level", "LOW"]}}'),
        (Access.READ | Access.WRITE, f'{{"$enum": ["{__name__}.Access", null, 3]}}'),
        (Point(1), f'{{"$dataclass": ["{__name__}.Point", {{"x": 1, "y": null, "label": "none"}}]}}'),
        (Pair(1), f'{{"$namedtuple": ["{__name__}.Pair", [1, null]]}}'),
        (function, f'{{"$callable": "{__name__}.function"}}'),
        (cached, f'{{"$callable": "{__name__}.cached"}}'),
        (len, '{"$callable": "builtins.len"}'),
        (math.sqrt, '{"$callable": "math.sqrt"}'),
        (dict.fromkeys, '{"$callable": "builtins.dict.fromkeys"}'),
        (Plain.method, f'{{"$callable": "{__name__}.Plain.method"}}'),
        (Plain.static, f'{{"$callable": "{__name__}.Plain.static"}}'),
        (Child.make, f'{{"$callable": "{__name__}.Child.make"}}'),
        (Plain, f'{{"$class": "{__name__}.Plain"}}'),
        (User, '{"$class": "django.contrib.auth.models.User"}'),
        (Unstorable("a.B", "why", "<B>"), '{"$unstorable": {"repr": "<B>", "type": "a.B", "reason": "why"}}'),
    ],
)
def test_form(value: Any, text: str) -> None:
    assert codec.encode(value) == text
    assert same(codec.decode(text, trusted=True), value)


@pytest.mark.parametrize("value", [float("nan"), math.inf, -math.inf, Decimal("NaN"), Decimal("-Infinity"),
                                   complex("nan+1j"), "a\0b", "\ud800", "\udcff\0", "\ud83d\ude00"])  # fmt: skip
def test_what_postgresql_refuses_is_tagged_in_results_and_refused_in_arguments(value: Any) -> None:
    assert same(results(value), value)
    assert same(results({value: [value]}), {value: [value]})
    for nested, place in ((value, "args[1]"), ([0, value], "args[1][1]"), ({"a": value}, "args[1]['a']")):
        with pytest.raises(NotStorable) as caught:
            codec.encode_args((1, nested), {})
        assert str(caught.value).startswith(place), caught.value
    with pytest.raises(NotStorable, match=r"^kwargs\['name'\]"):
        codec.encode_args((), {"a": 1, "name": value})


def test_subclasses_become_the_plain_type() -> None:
    class Odd(int):
        def __repr__(self) -> str:
            return "1}, {"

        __str__ = __repr__

    class Shouting(str):
        def __str__(self) -> str:
            return self.upper()

    class Endless(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[int]:
            while True:
                yield 1

    assert same(results(mark_safe("<b>")), "<b>")
    assert type(results(SafeString("x"))) is str
    assert same(results([Odd(5), Shouting("a"), Endless([1])]), [5, "a", [1]])
    assert same(results([defaultdict(list, {"a": 1}), Counter("aa")]), [{"a": 1}, {"a": 2}])
    assert same(results([bytearray(b"a"), memoryview(b"b")]), [b"a", b"b"])
    assert results(gettext_lazy("Yes")) == "Yes"
    assert same(results(QueryDict("a=1&a=2")), {"a": ["1", "2"]})  # all of it, not what its items() says


def test_str_enum_keys_do_not_collide_with_their_texts() -> None:
    value = {Size.SMALL: 1, "x": 2, SafeString("y"): 3}
    assert results(value) == value
    assert type(next(iter(results(value)))) is Size


def test_ordered_dict_keeps_its_order() -> None:
    value = OrderedDict([("zz", 1), ("a", 2)])
    assert list(results(value).items()) == [("zz", 1), ("a", 2)]
    assert list(results(dict(value))) == ["a", "zz"]


def test_fold_and_zone_survive() -> None:
    for fold in (0, 1):
        for zone in (None, dt.UTC, BERLIN):
            value = dt.datetime(2024, 10, 27, 2, 30, tzinfo=zone, fold=fold)
            assert same(results(value), value)
            assert results(value).utcoffset() == value.utcoffset()


def test_a_moment_counts_more_than_its_wall_clock() -> None:
    """As written by a machine where Berlin had other rules."""
    value = codec.decode('{"$datetime": ["2024-07-01T12:00:00+05:00", "Europe/Berlin", 0]}')
    assert value == dt.datetime(2024, 7, 1, 7, tzinfo=dt.UTC)
    assert value.tzinfo is BERLIN


def test_local_namedtuple_is_a_tuple_in_results_and_refused_in_arguments() -> None:
    Row = namedtuple("Row", "a b")
    assert same(results([Row(1, 2)]), [(1, 2)])
    with pytest.raises(NotStorable, match=r"^args\[0\] "):
        codec.encode_args((Row(1, 2),), {})


def test_dataclass_is_made_without_calling_it() -> None:
    value = object.__new__(Watched)
    value.value = [1]
    assert results(value).value == [1]
    assert codec.decode(f'{{"$dataclass": ["{__name__}.Watched", {{}}]}}', trusted=True).value == []


@pytest.mark.parametrize(
    "text",
    [
        '{"$dataclass": ["%s.Point", {}]}',  # a field without default
        '{"$dataclass": ["%s.Point", {"x": 1, "z": 2}]}',
        '{"$dataclass": ["%s.Plain", {"value": 2}]}',
        '{"$dataclass": ["%s.function", {}]}',
        '{"$enum": ["%s.Color", "GREEN"]}',
        '{"$enum": ["%s.Plain", "make"]}',
        '{"$enum": ["%s.Access", null, "x"]}',
        '{"$namedtuple": ["%s.Pair", [1]]}',
        '{"$namedtuple": ["builtins.tuple", []]}',
        '{"$class": "%s.function"}',
        '{"$callable": "%s.LIMIT"}',
        '{"$callable": "%s.gone"}',
        '{"$callable": "%s.function.__globals__"}',
    ],
)
def test_names_that_are_not_what_they_should_be(text: str) -> None:
    with pytest.raises(NotDecodable):
        codec.decode(text.replace("%s", __name__), trusted=True)


# --- refusals ---


def endless() -> Iterator[int]:
    yield 1


async def coroutine() -> None: ...


def itself() -> list[Any]:
    value: list[Any] = []
    value.append({"a": (value,)})
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def laughs() -> list[Any]:
    """A small object that would be 2**60 bytes of JSON."""
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: 1, "lambda"),
        (endless(), "generator"),
        (map(str, [1]), "iterator"),
        (io.StringIO(), "file"),
        (open(os.devnull), "file"),  # noqa: SIM115
        (sys, "module"),
        (Plain(), "allow_pickle"),
        (object(), "allow_pickle"),
        (Plain().method, "bound"),
        ([].append, "name"),
        (functools.partial(function), "name"),
        (ValueError("x"), "ValueError"),
        (Named(x=1), "dataclass"),
        (types.SimpleNamespace(), "SimpleNamespace"),
        (Plain.__init__, "calls itself"),
        (User(), "saved"),
        (User(pk=5), "saved"),
        (User.objects.all(), "pks"),
        (User.objects, "pks"),
        (itself(), "contains itself"),
        (deep(1_000), "nested"),
        (deep(100_000), "nested"),
    ],
)
def test_refused_with_place_and_advice(value: Any, words: str) -> None:
    for args, kwargs, place in (((1, value), {}, "args[1]"), ((), {"name": {"k": value}}, "kwargs['name']['k']")):
        with pytest.raises(NotStorable) as caught:
            codec.encode_args(args, kwargs)
        assert str(caught.value).startswith(place)
        assert words in str(caught.value)
        assert len(str(caught.value)) < 400
    with pytest.raises(NotStorable, match=r"^options[ \[]"):
        codec.encode(value, where="options")


def test_local_things_are_refused() -> None:
    class Local(enum.Enum):
        A = 1

    @dataclasses.dataclass
    class Here:
        x: int = 1

    def inner() -> None: ...

    for value in (Local, Local.A, Here(), inner):
        with pytest.raises(NotStorable, match=r"^args\[0\] .*inside a function"):
            codec.encode_args((value,), {})


def test_things_that_moved_or_are_of_main_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = function
    monkeypatch.setattr(sys.modules[__name__], "function", lambda: None)
    with pytest.raises(NotStorable, match="calls itself"):
        codec.encode(replaced)
    monkeypatch.setattr(replaced, "__module__", "__main__")
    with pytest.raises(NotStorable, match="__main__"):
        codec.encode(replaced)


def test_coroutines_are_refused() -> None:
    value = coroutine()
    with pytest.raises(NotStorable, match="await"):
        codec.encode(value)
    value.close()


def test_places_inside_other_containers() -> None:
    bad = "\0"
    for value, place in (
        (Point(1, [bad]), "value.y[0]"),
        ((1, bad), "value[1]"),
        ({1: bad}, "value[1]"),
        ({(1, bad): 1}, "value, key (1, '\\x00'),"),
        (Pair(1, {"a": bad}), "value[1]['a']"),
    ):
        with pytest.raises(NotStorable) as caught:
            codec.encode(value)
        assert str(caught.value).startswith(place + " "), caught.value


def test_depth_up_to_the_limit() -> None:
    assert results(deep(codec.MAX_DEPTH - 1)) == deep(codec.MAX_DEPTH - 1)
    nested: Any = 1
    for _ in range(codec.MAX_DEPTH - 1):
        nested = {(nested,) if isinstance(nested, int) else 1: nested}
    assert results(nested) == nested


def test_a_value_that_repeats_itself_is_bounded() -> None:
    with pytest.raises(NotStorable, match="10,000"):
        codec.encode(laughs(), limit=10_000)
    with pytest.raises(NotStorable, match="10,000"):
        codec.encode(["x" * 9_999] * 1_000_000, limit=10_000)
    with pytest.raises(NotStorable, match=r"^args\[1\] "):
        codec.encode_args((1, laughs()), {}, limit=10_000)


def test_too_large_names_the_largest_argument() -> None:
    with pytest.raises(NotStorable, match=r"^kwargs\['b'\] .*1,000 bytes"):
        codec.encode_args(("x" * 300,), {"a": "y" * 300, "b": "é" * 300}, limit=1_000)
    codec.encode_args(("x" * 300,), {"a": "y" * 300, "b": "z" * 300}, limit=1_000)


def test_limit_counts_bytes_of_utf8() -> None:
    assert codec.encode("é" * 10, limit=22)
    with pytest.raises(NotStorable, match="22 bytes"):
        codec.encode("é" * 10, limit=21)


def test_recursion_limit_met_elsewhere_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgq.codec.write.MAX_DEPTH", 10**9)
    with pytest.raises(NotStorable, match="too deep"):
        codec.encode(deep(100_000))
    with pytest.raises(NotStorable, match="too deep"):
        codec.encode_args((deep(100_000),), {})
    assert "too deep" in codec.decode(codec.encode_result(deep(100_000), limit=LIMIT)).reason


# --- results ---


class Hostile:
    def __init__(self, error: type[BaseException] = ValueError) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error("\0\ud800")

    __str__ = __repr__

    def __reduce__(self) -> Any:
        raise self.error("no")


class Prickly(BaseException):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class Meta(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise ValueError


class Masked(metaclass=Meta): ...


class Liar:
    @property
    def __class__(self) -> Any:
        raise Prickly

    def __repr__(self) -> str:
        return "\0" * 5_000_000


class BadLength(list):  # type: ignore[type-arg]
    def __len__(self) -> int:
        raise MemoryError

    __iter__ = __repr__ = __len__  # type: ignore[assignment]


@pytest.mark.parametrize("allow_pickle", [False, True])
@pytest.mark.parametrize(
    "make",
    [Hostile, lambda: Hostile(RecursionError), lambda: Hostile(MemoryError), lambda: Hostile(SystemExit),
     lambda: [Hostile(Prickly)], lambda: {1: {"a": Hostile()}}, Masked, Liar, endless,
     lambda: function.__code__, functools.partial(open, os.devnull), itself, laughs, lambda: deep(10_000),
     lambda: b"x" * LIMIT, lambda: "x" * LIMIT, lambda: ["x" * 99] * LIMIT, lambda: bytearray(5 * LIMIT),
     lambda: 1 << 100_000_000, User, lambda: User.objects.all(), lambda: lambda: 1],
)  # fmt: skip
def test_results_are_total(make: Any, allow_pickle: bool) -> None:
    value = make()
    text = codec.encode_result(value, limit=LIMIT, allow_pickle=allow_pickle, sign=sign)
    text.encode()
    placeholder = codec.decode(text)
    if isinstance(placeholder, Unstorable):
        assert placeholder.reason
        assert len(placeholder.repr) <= 1_000
        assert "\\u0000" not in text
        assert len(text) < 10_000
    if type(value) is io.TextIOWrapper:
        value.close()


@pytest.mark.parametrize("make", [Hostile, Liar, Masked, itself, laughs, endless, lambda: b"x" * LIMIT, BadLength])
def test_hostile_results_are_placeholders(make: Any) -> None:
    if make is BadLength:  # a list all the same, and read as one
        assert codec.decode(codec.encode_result(BadLength([1]), limit=LIMIT)) == [1]
        return
    assert isinstance(codec.decode(codec.encode_result(make(), limit=LIMIT)), Unstorable)


def test_placeholder_says_what_why_and_how_large() -> None:
    placeholder = codec.decode(codec.encode_result({"a": [endless()]}, limit=LIMIT))
    assert placeholder.type == "dict"
    assert placeholder.reason.startswith("result['a'][0] is a generator")
    assert "generator object" in placeholder.repr
    assert placeholder.size is None
    large = codec.decode(codec.encode_result("é" * 9_000, limit=1_000))
    assert (large.type, large.size) == ("str", None) or large.size == 18_002
    assert "1,000 bytes" in large.reason
    assert codec.decode(codec.encode_result(["x" * 99] * 20, limit=1_000)).size == 20 * 103


def test_placeholder_passed_on_stays_one() -> None:
    placeholder = codec.decode(codec.encode_result(endless(), limit=LIMIT))
    assert codec.decode(codec.encode_result(placeholder, limit=LIMIT)) == placeholder


def test_ctrl_c_is_not_swallowed() -> None:
    class Interrupting:
        @property
        def __class__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        codec.encode_result(Interrupting(), limit=LIMIT)


@settings(max_examples=300, deadline=None)
@given(values)
def test_results_survive_as_they_are(value: Any) -> None:
    text = codec.encode_result(value, limit=LIMIT)
    assert same(codec.decode(text, trusted=True), value)


# --- pickle ---


def test_pickle_is_opt_in_on_both_sides() -> None:
    with pytest.raises(NotStorable):
        codec.encode(Plain(), sign=sign)
    with pytest.raises(TypeError):
        codec.encode(Plain(), allow_pickle=True)
    text = codec.encode([Plain(7)], allow_pickle=True, sign=sign)
    assert codec.decode(text, trusted=True, allow_pickle=True, unsign=unsign) == [Plain(7)]
    for grants in ({"trusted": True}, {"trusted": True, "unsign": unsign}, {"allow_pickle": True, "unsign": unsign}):
        with pytest.raises(NotAllowed):
            codec.decode(text, **grants)  # type: ignore[arg-type]


def test_pickle_with_a_bad_signature_is_not_loaded() -> None:
    text = codec.encode(Plain(), allow_pickle=True, sign=sign).replace("signed:", "forged:")
    with pytest.raises(NotAllowed, match="bad signature"):
        codec.decode(text, trusted=True, allow_pickle=True, unsign=unsign)


def test_pickle_that_cannot_be_loaded() -> None:
    text = codec.encode(Plain(), allow_pickle=True, sign=sign)
    gone = pickle.dumps(Plain()).replace(b"Plain", b"Gone!")
    with pytest.raises(NotDecodable):
        codec.decode(
            text.replace(text[text.index(":", 12) + 1 : -2], base64.b64encode(gone).decode()),
            trusted=True, allow_pickle=True, unsign=unsign,
        )  # fmt: skip


def test_pickle_does_not_let_lambdas_in() -> None:
    for value in (lambda: 1, Hostile(), endless(), User.objects.all()):
        with pytest.raises(NotStorable):
            codec.encode_args((value,), {}, allow_pickle=True, sign=sign)


# --- models ---


def saved(user: Any) -> Any:
    user._state.adding, user._state.db = False, "default"
    return user


def test_model_is_a_reference() -> None:
    assert codec.encode(saved(User(pk=5))) == '{"$model": ["auth.User", 5, "default"]}'
    lazy = SimpleLazyObject(lambda: saved(User(pk=6)))
    assert codec.encode([lazy]) == '[{"$model": ["auth.User", 6, "default"]}]'


@pytest.mark.django_db
def test_model_is_loaded_anew() -> None:
    row = ContentType.objects.create(app_label="pgq_test", model="thing")
    text = codec.encode(row)
    ContentType.objects.filter(pk=row.pk).update(model="renamed")
    loaded = codec.decode(text, trusted=True)
    assert (loaded, loaded.model) == (row, "renamed")
    pk = row.pk
    row.delete()
    with pytest.raises(ObjectGone, match=rf"contenttypes\.ContentType with pk {pk} is gone"):
        codec.decode(text, trusted=True)
    with pytest.raises(LookupError):
        codec.decode(text, trusted=True)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "content",
    ['["auth.Nothing", 1, "default"]', '["auth", 1, "default"]', '["auth.User", "x", "default"]',
     '["auth.User", 1, "nowhere"]', '["auth.User"]', "5", '["auth.User", {"a": 1}, "default"]'],
)  # fmt: skip
def test_model_that_cannot_be_loaded(content: str) -> None:
    with pytest.raises(NotDecodable):
        codec.decode(f'{{"$model": {content}}}', trusted=True)


# --- trust ---

UNTRUSTED = [
    '{"$callable": "%s"}',
    '{"$class": "%s"}',
    '{"$enum": ["%s", "A"]}',
    '{"$dataclass": ["%s", {}]}',
    '{"$namedtuple": ["%s", []]}',
    '{"$model": ["%s", 1, "default"]}',
    '{"$pickle": "%s"}',
]


@pytest.mark.parametrize("form", UNTRUSTED)
@pytest.mark.parametrize("around", ["%s", "[1, %s]", '{"$tuple": [%s]}', '{"a": {"$dict": [[1, %s]]}}'])
def test_unsigned_text_imports_nothing(form: str, around: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "pgq_gadget.py").write_text("class A: pass\n")
    text = around % (form % "pgq_gadget.A")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(NotAllowed):
            codec.decode(text)
        with pytest.raises(NotAllowed):
            codec.decode_args(f"[{text}]", "{}", allow_pickle=True, unsign=unsign)
        codec.decode_for_display(text)
        assert "pgq_gadget" not in sys.modules
        if "$class" in form:  # or this test could not fail
            codec.decode(text, trusted=True)
            assert "pgq_gadget" in sys.modules
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("pgq_gadget", None)


@settings(deadline=None)
@given(st.lists(atoms | moments | st.binary() | st.decimals(), max_size=4))
def test_unsigned_text_may_use_the_other_tags(value: list[Any]) -> None:
    assert same(codec.decode(codec.encode(value, strict=False)), value)


def test_import_errors_are_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "pgq_broken.py").write_text("import pgq_missing_dependency\n")
    (tmp_path / "pgq_raising.py").write_text("raise SystemError('at import')\n")
    sys.path.insert(0, str(tmp_path))
    try:
        for path, words in (
            ("pgq_broken.f", "pgq_missing_dependency"),
            ("pgq_raising.f", "at import"),
            ("pgq_absent.f", "pgq_absent"),
            ("os.path.nothing", "nothing"),
            ("os", "dotted path"),
            ("os..path", "dotted path"),
            ("os.system; x", "dotted path"),
        ):
            with pytest.raises(NotDecodable, match=words):
                codec.decode(json.dumps({"$callable": path}), trusted=True)
    finally:
        sys.path.remove(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "{", "[1,", "nul", "NaN", "[Infinity]", "1" * 5000, "[" * 100_000, '{"$nope": 1}', '{"$": 1}',
     '{"$date": 5}', '{"$date": "x"}', '{"$uuid": [1]}', '{"$bytes": "!"}', '{"$bytes": "é"}', '{"$set": [[1]]}',
     '{"$set": "ab"}', '{"$tuple": "ab"}', '{"$dict": [1]}', '{"$dict": [[[1], 2]]}', '{"$int": 5}', '{"$int": "g"}',
     '{"$timedelta": [99999999999, 0, 0]}', '{"$range": [1, 2, 0]}', '{"$decimal": "x"}', '{"$float": [1]}',
     '{"$datetime": ["2024-01-01T00:00:00", "No/Where", 0]}', '{"$datetime": ["2024-01-01T00:00:00", "../x", 0]}',
     '{"$path": ["Popen", "x"]}', '{"$unstorable": {"nope": 1}}', '{"$str": "/w=="}', '{"$zlib": "AAAA"}'],
)  # fmt: skip
def test_malformed_text_is_not_decodable(text: str) -> None:
    with pytest.raises(NotDecodable):
        codec.decode(text, trusted=True)
    codec.decode_for_display(text)


def test_objects_written_by_hand() -> None:
    """What psql users write is theirs, unless it looks like a tag."""
    assert codec.decode('{"$a": 1, "b": 2}') == {"$a": 1, "b": 2}
    assert codec.decode('["$date", "$"]') == ["$date", "$"]


def test_arguments_must_be_array_and_object() -> None:
    for texts in (("{}", "{}"), ("[]", "[]"), ('{"$tuple": []}', "{}"), ("[]", '{"$date": "2024-01-01"}')):
        with pytest.raises(NotDecodable):
            codec.decode_args(*texts)


def test_keywords_that_look_like_tags() -> None:
    texts = codec.encode_args((), {"$date": "2024-01-01"})
    assert codec.decode_args(*texts) == ((), {"$date": "2024-01-01"})


def test_decoded_arguments_are_nobody_elses() -> None:
    first, second = codec.decode_args("[]", "{}"), codec.decode_args("[]", "{}")
    first[1]["a"] = 1
    assert second == ((), {})


# --- compression ---

LONG = ["a longer text, and again " * 200]


def test_compression_is_used_where_it_helps() -> None:
    args, kwargs = codec.encode_args((LONG, 1), {"b": Point(1)}, compress=True)
    assert args.startswith('[{"$zlib": "')
    assert kwargs == "{}"
    assert len(args) < 500
    assert codec.decode_args(args, kwargs, trusted=True) == ((LONG, 1), {"b": Point(1)})
    with pytest.raises(NotAllowed):
        codec.decode_args(args, kwargs)
    assert codec.encode_args((1,), {}, compress=True) == ("[1]", "{}")
    noise = base64.b85encode(os.urandom(5_000)).decode()
    assert codec.decode_args(*codec.encode_args((noise,), {}, compress=True)) == ((noise,), {})


def test_keywords_beside_compressed_arguments_count() -> None:
    args, kwargs = codec.encode_args((LONG,), {"a": 1, "b": 2}, compress=True)
    assert kwargs == "{}"
    assert codec.decode_args(args, '{"b": 3, "c": 4}') == ((LONG,), {"a": 1, "b": 3, "c": 4})


def zipped(data: bytes) -> str:
    return f'[{{"$zlib": "{base64.b64encode(data).decode()}"}}]'


@pytest.mark.parametrize(
    "data",
    [zlib.compress(b"[[], {}]")[:-3], zlib.compress(b"[[], {}]") + b"x", b"nonsense", b"", zlib.compress(b"\xff"),
     zlib.compress(b"5"), zlib.compress(b"[[]]"), zlib.compress(b"[{}, []]")],
)  # fmt: skip
def test_damaged_compression(data: bytes) -> None:
    with pytest.raises(NotDecodable):
        codec.decode_args(zipped(data), "{}")
    codec.decode_args_for_display(zipped(data), "{}")


def test_zip_bomb_is_not_inflated() -> None:
    bomb = zipped(zlib.compress(b'[["' + b"a" * (100 << 20) + b'"], {}]', 9))
    assert len(bomb) < 200_000
    with pytest.raises(NotDecodable, match="67,108,864"):
        codec.decode_args(bomb, "{}")
    assert len(repr(codec.decode_args_for_display(bomb, "{}"))) < 100
    exact = zipped(zlib.compress(b'[["aaaaa"], {}]'))
    assert codec.decode_args(exact, "{}", limit=15) == (("aaaaa",), {})
    with pytest.raises(NotDecodable, match="14"):
        codec.decode_args(exact, "{}", limit=14)


def test_an_argument_that_looks_compressed_is_not() -> None:
    texts = codec.encode_args(({"$zlib": "AAAA"},), {})
    assert codec.decode_args(*texts) == (({"$zlib": "AAAA"},), {})


# --- display ---


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (saved(User(pk=5)), "<auth.User 5>"),
        (function, f"<function {__name__}.function>"),
        (Plain, f"<class {__name__}.Plain>"),
        (Color.RED, f"<{__name__}.Color.RED>"),
        (Point(1, "a"), f"<{__name__}.Point x=1, y='a', label='none'>"),
        (Pair(1, Color.RED), f"<{__name__}.Pair 1, '<{__name__}.Color.RED>'>"),
        ([(1, b"a")], [(1, b"a")]),
        ({1: dt.date(2024, 1, 1)}, {1: dt.date(2024, 1, 1)}),
    ],
)
def test_display(value: Any, shown: Any) -> None:
    assert codec.decode_for_display(codec.encode(value)) == shown


def test_display_of_pickle_and_compression() -> None:
    text = codec.encode([Plain()], allow_pickle=True, sign=sign)
    assert codec.decode_for_display(text) == [f"<pickled {len(pickle.dumps(Plain()))} bytes>"]
    args, kwargs = codec.encode_args((LONG, function), {}, compress=True)
    assert codec.decode_args_for_display(args, kwargs) == ([LONG, f"<function {__name__}.function>"], {})
    assert codec.decode_args_for_display("[1]", '{"a": 1}') == ([1], {"a": 1})


@settings(max_examples=300)
@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(["$date", "$datetime", "$time", "$timedelta", "$decimal", "$uuid", "$float", "$int", "$set",
                             "$complex", "$path", "$bytes", "$str", "$tuple", "$frozenset", "$dict", "$enum", "$zlib",
                             "$dataclass", "$namedtuple", "$callable", "$class", "$model", "$pickle", "$unstorable",
                             "$unknown", "a"]), inner, max_size=2),
    )
)  # fmt: skip
def test_display_and_decode_of_anything(value: Any) -> None:
    """Display never raises; decoding raises nothing but ours."""
    text = json.dumps(value)
    codec.decode_for_display(text)
    with contextlib.suppress(NotDecodable, NotAllowed):
        codec.decode(text, allow_pickle=True, unsign=unsign)


# --- texts ---


def test_clean_text() -> None:
    assert codec.clean_text("a\0b\ud800c\udfffé\U0001f600", None) == "a\ufffdb\ufffdc\ufffdé\U0001f600"
    assert codec.clean_text("x" * 100, 100) == "x" * 100
    long = codec.clean_text("HEAD" + "\0" * 1_000_000 + "TAIL", 200)
    assert len(long) == 200
    assert long.startswith("HEAD\ufffd")
    assert long.endswith("\ufffdTAIL")
    assert "1,000,008 characters" in long
    for limit in (0, 1, 5, 60):
        assert len(codec.clean_text("y" * 500, limit)) == limit


@given(any_text, st.integers(0, 20))
def test_clean_text_can_be_stored(text: str, limit: int) -> None:
    cleaned = codec.clean_text(text, limit)
    assert len(cleaned) <= limit
    assert "\0" not in cleaned
    cleaned.encode()


def test_codec_does_not_import_django() -> None:
    """So that processes without Django, such as the supervisor, can read texts."""
    import subprocess

    code = "import sys, pgq.codec as c; c.encode_args((b'x', len), {}); sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_operator_paths_with_dunders_are_refused() -> None:
    with pytest.raises(NotStorable):
        codec.encode(operator.__add__.__call__)
