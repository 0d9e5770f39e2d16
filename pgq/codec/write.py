"""The writing half of `pgq.codec`: from values to tags. What the tags are, see there."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import io
import pathlib
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pgq.codec.dotted import Unnamed, path_in_memory, type_path
from pgq.codec.read import Unstorable, is_plain_path, safe_repr

#: How deep values may be nested: a few frames of Python each, so well inside its recursion limit.
MAX_DEPTH = 100
#: PostgreSQL keeps lengths inside a jsonb in 28 bits.
MAX_BYTES = (1 << 28) - 1
#: Ints beyond are written in hex: decimal text is quadratic, and Python refuses it past a limit that may be set to 640.
_PLAIN_INT = 1 << 1024
#: What is longer, characters of a text or items of an array, is counted before it is written.
LONG = 10_000

quote = encode_basestring


class Refused(Exception):
    """A value has no stored form; `at` gathers where it stands, innermost first, while the walk unwinds."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.at: list[str] = []

    def message(self, where: str) -> str:
        """Return the sentence for the user, with the place (cut if it is long) as its subject."""
        place = where + "".join(reversed(self.at))
        return f"{place if len(place) <= 100 else place[:97] + '...'} {self}"


class TooLarge(Refused):
    """The JSON would be longer than allowed; `size` is its length in bytes where it was written to the end."""

    def __init__(self, limit: int, size: int | None = None) -> None:
        super().__init__(f"takes {'' if size is None else f'{size:,} bytes, '}more than the {limit:,} bytes allowed")
        self.size = size


def path_of(value: Any) -> str:
    """Return the dotted path by which a worker will find this function or class.

    Raises:
        Refused: no module has it under that name, or only one that reading would refuse.
    """
    try:
        path = path_in_memory(value)
    except Unnamed as error:
        raise Refused(str(error)) from None
    if not is_plain_path(path):
        raise Refused(f"calls itself {path}, which is a path into Python's inner parts; define it in a module")
    return path


def plain_int(value: int) -> str:
    return repr(value) if -_PLAIN_INT < value < _PLAIN_INT else f'{{"$int": "{value:#x}"}}'


def plain_float(value: float) -> str:
    """Write a float; ValueError for NaN and infinities. jsonb loses the sign of -0.0, and makes 1e22 an int."""
    text = repr(value)
    if "n" in text:
        raise ValueError("not finite")
    return f'{{"$float": "{text}"}}' if "e" in text or text == "-0.0" else text


def plain_str(value: str) -> str:
    """Write a text; ValueError if PostgreSQL cannot hold it, or if it is long enough to be counted first."""
    if "\0" in value or len(value) > LONG:
        raise ValueError("not plain")
    if not value.isascii():
        value.encode()
    return quote(value)


#: What needs no state to be written: exact types only.
PLAIN: dict[type, Callable[[Any], str]] = {
    types.NoneType: {None: "null"}.__getitem__,
    bool: {True: "true", False: "false"}.__getitem__,
    int: plain_int,
    float: plain_float,
    str: plain_str,
}
_ONLY_STR = {str}


def sorted_keys(value: Mapping[Any, object]) -> list[str] | None:
    """Return the keys in jsonb's order, by length in UTF-8 and then by bytes; None if not all keys can be JSON's.

    Sorting by code points is sorting by bytes of UTF-8.
    """
    if set(map(type, value)) != _ONLY_STR:
        return None if value else []
    joined = "".join(value)
    if "\0" in joined or ("$" in joined and any(key[:1] == "$" for key in value)):
        return None
    keys = sorted(value)
    if joined.isascii():
        keys.sort(key=len)
        return keys
    try:
        keys.sort(key=lambda key: len(key.encode()))
    except UnicodeEncodeError:
        return None
    return keys


class Writer:
    """Writes one value as canonical JSON. Made for one use: it counts what it has written.

    Args:
        strict: Refuse NUL, lone surrogates, NaN and infinities rather than tag them.
        sign: Signs a pickle; None: values without a tag are refused.
        limit: Bytes after which to give up; counted roughly, never too many.
    """

    __slots__ = ("left", "limit", "sign", "strict")

    def __init__(self, *, strict: bool, sign: Callable[[bytes], str] | None, limit: int) -> None:
        self.strict = strict
        self.sign = sign
        self.limit = self.left = min(limit, MAX_BYTES)

    def write(self, value: Any, depth: int = 0) -> str:
        """Return the JSON of a value that stands `depth` containers deep.

        Raises:
            Refused: it has no stored form.
        """
        kind = type(value)
        plain = PLAIN.get(kind)
        if plain is not None:
            try:
                text = plain(value)
            except ValueError:
                pass
            else:
                self.left -= len(text)
                if self.left < 0:
                    raise TooLarge(self.limit)
                return text
        self.spend(2)
        writer = _WRITERS.get(kind)
        return writer(self, value, depth) if writer is not None else self._other(value, depth)

    def spend(self, size: int) -> None:
        # Counted on the way, so that neither a huge value nor a small one that holds itself many times
        # over ([[x, x], [x, x]] ...) is written out first and measured then.
        self.left -= size
        if self.left < 0:
            raise TooLarge(self.limit)

    def _items(self, values: Iterable[Any], depth: int) -> list[str]:
        if depth >= MAX_DEPTH:
            raise Refused(f"is nested more than {MAX_DEPTH} deep, or contains itself")
        texts: list[str] = []
        try:
            for value in values:
                texts.append(self.write(value, depth + 1))  # its length is the position
        except Refused as refused:
            refused.at.append(f"[{len(texts)}]")
            raise
        return texts

    def array(self, values: Iterable[Any], depth: int = 0) -> str:
        return f"[{', '.join(self._items(values, depth))}]"

    def _object(self, value: Mapping[str, Any], keys: Iterable[str], depth: int, place: str = "[{!r}]") -> str:
        if depth >= MAX_DEPTH:
            raise Refused(f"is nested more than {MAX_DEPTH} deep, or contains itself")
        texts = []
        for key in keys:
            self.spend(len(key))
            try:
                texts.append(f"{quote(key)}: {self.write(value[key], depth + 1)}")
            except Refused as refused:
                refused.at.append(place.format(key))
                raise
        return f"{{{', '.join(texts)}}}"

    def _str(self, value: str, _depth: int) -> str:
        value = str.__str__(value)  # of a subclass, the plain text
        self.spend(len(value))
        try:
            data = value.encode()
        except UnicodeEncodeError:
            if self.strict:
                raise Refused("holds a lone surrogate, which PostgreSQL cannot store; encode it to bytes") from None
            data = value.encode("utf-8", "surrogatepass")
        else:
            if "\0" not in value:
                return quote(value)
            if self.strict:
                raise Refused("holds a NUL character, which PostgreSQL cannot store; remove it, or pass bytes")
        return f'{{"$str": "{base64.b64encode(data).decode()}"}}'

    def _float(self, value: float, _depth: int) -> str:
        try:
            return plain_float(float.__float__(value))
        except ValueError:
            if self.strict:
                raise Refused(f"is {float.__repr__(value)}, which JSON cannot store; pass None or a text") from None
            return f'{{"$float": "{float.__repr__(value)}"}}'

    def _int(self, value: int, _depth: int) -> str:
        self.spend(int.bit_length(value) // 4)
        return plain_int(int.__int__(value))

    def _complex(self, value: complex, depth: int) -> str:
        return f'{{"$complex": {self.array((value.real, value.imag), depth)}}}'

    def _decimal(self, value: Decimal, _depth: int) -> str:
        if self.strict and not value.is_finite():
            raise Refused(f"is the Decimal {value}; pass None or a text")
        return f'{{"$decimal": "{Decimal.__str__(value)}"}}'

    def _list(self, value: list[Any], depth: int) -> str:
        return self.array(list.__iter__(value), depth)

    def _tuple(self, value: tuple[Any, ...], depth: int) -> str:
        items = self.array(tuple.__iter__(value), depth)
        if type(value) is tuple or not hasattr(type(value), "_fields"):
            return f'{{"$tuple": {items}}}'
        try:
            path = path_of(type(value))
        except Refused:
            # Rows of values_list(named=True) and the like. As an argument, the function would miss its names.
            if self.strict:
                raise
            return f'{{"$tuple": {items}}}'
        return f'{{"$namedtuple": ["{path}", {items}]}}'

    def _set(self, value: set[Any] | frozenset[Any], depth: int) -> str:
        if isinstance(value, set):
            tag, items = "$set", set.__iter__(value)
        else:
            tag, items = "$frozenset", frozenset.__iter__(value)
        return f'{{"{tag}": [{", ".join(sorted(self._items(items, depth)))}]}}'

    def mapping(self, value: dict[Any, Any], depth: int = 0) -> str:
        if type(value) is not dict:
            ordered, value = isinstance(value, OrderedDict), dict(dict.items(value))
            keys = None if ordered else sorted_keys(value)
        else:
            keys = sorted_keys(value)
        return self._pairs(value, depth) if keys is None else self._object(value, keys, depth)

    def _pairs(self, value: dict[Any, Any], depth: int) -> str:
        texts = []
        for key, item in value.items():
            try:
                texts.append(self.array((key, item), depth))
            except Refused as refused:
                label = safe_repr(key, 50)
                if refused.at and refused.at.pop() == "[0]":  # of the pair
                    refused.at = [f", key {label},"]
                else:
                    refused.at.append(f"[{label}]")
                raise
        return f'{{"$dict": [{", ".join(texts)}]}}'

    def _bytes(self, value: bytes | bytearray | memoryview, _depth: int) -> str:
        view = memoryview(value)
        self.spend(view.nbytes)
        return f'{{"$bytes": "{base64.b64encode(view.tobytes()).decode()}"}}'

    def _datetime(self, value: dt.datetime, _depth: int) -> str:
        return _moment("$datetime", dt.datetime.isoformat(value), value)

    def _time(self, value: dt.time, _depth: int) -> str:
        return _moment("$time", dt.time.isoformat(value), value)

    def _date(self, value: dt.date, _depth: int) -> str:
        return f'{{"$date": "{dt.date.isoformat(value)}"}}'

    def _timedelta(self, value: dt.timedelta, _depth: int) -> str:
        return f'{{"$timedelta": [{value.days}, {value.seconds}, {value.microseconds}]}}'

    def _uuid(self, value: UUID, _depth: int) -> str:
        return f'{{"$uuid": "{UUID.__str__(value)}"}}'

    def _range(self, value: range, depth: int) -> str:
        return f'{{"$range": {self.array((value.start, value.stop, value.step), depth)}}}'

    def _path(self, value: pathlib.PurePath, depth: int) -> str:
        pure = not isinstance(value, pathlib.Path)
        kind = "Path" if not pure else ("PureWindowsPath", "PurePosixPath")[isinstance(value, pathlib.PurePosixPath)]
        return f'{{"$path": {self.array((kind, str(value)), depth)}}}'

    def _unstorable(self, value: Unstorable, depth: int) -> str:
        fields = {name: getattr(value, name) for name in ("repr", "type", "reason")}
        if value.size is not None:
            fields["size"] = value.size
        return f'{{"$unstorable": {self._object(fields, sorted_keys(fields) or (), depth)}}}'

    def _enum(self, value: enum.Enum, depth: int) -> str:
        path = path_of(type(value))
        if type(value).__members__.get(value.name) is value:
            return f'{{"$enum": ["{path}", {quote(value.name)}]}}'
        # A flag put together from several members has no name to be looked up by.
        return f'{{"$enum": ["{path}", null, {self.write(value.value, depth)}]}}'

    def _dataclass(self, value: Any, depth: int) -> str:
        kind = type(value)
        path = path_of(kind)
        if getattr(kind, "__new__", None) is not object.__new__:
            raise Refused(f"is a {path}, a dataclass with a __new__ of its own; pass plain values")
        try:
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        except AttributeError as error:
            raise Refused(f"is a {path} with a field not set: {error}") from error
        return f'{{"$dataclass": ["{path}", {self._object(fields, sorted_keys(fields) or (), depth, ".{}")}]}}'

    def _model(self, value: Any, depth: int) -> str:
        label = value._meta.label
        if value.pk is None or value._state.adding:
            raise Refused(f"is a {label} that has not been saved; save it first, or pass its values")
        from django.db import router

        # Where it is written, as save() would: where it was read from may be a replica, which has it later.
        alias = router.db_for_write(value._meta.model, instance=value)
        return f'{{"$model": {self.array((label, value.pk, alias), depth)}}}'

    def _other(self, value: Any, depth: int) -> str:
        """Write a value of a type that is not in the table: of a subclass, or known by what it does."""
        if isinstance(value, enum.Enum):  # before int and str, which IntEnum and TextChoices are
            return self._enum(value, depth)
        if isinstance(value, type):
            return f'{{"$class": "{path_of(value)}"}}'
        models = sys.modules.get("django.db.models")  # not loaded: then this is no model
        if models is not None:
            # isinstance sees through SimpleLazyObject, such as request.user.
            if isinstance(value, models.Model):
                return self._model(value, depth)
            if isinstance(value, models.QuerySet | models.Manager):
                raise Refused("is a QuerySet, which would be read elsewhere and later; pass its pks, or list() of it")
            from django.utils.functional import Promise

            if isinstance(value, Promise):  # gettext_lazy: the text in the language of now
                return self.write(str(value), depth)
        if dataclasses.is_dataclass(value):
            return self._dataclass(value, depth)
        for base in type(value).__mro__:
            writer = _WRITERS.get(base)
            if writer is not None:
                return writer(self, value, depth)
        return self._by_name_or_pickle(value)

    def _by_name_or_pickle(self, value: Any) -> str:
        advice = next((text for kinds, text in _ADVICE if isinstance(value, kinds)), None)
        if advice is not None:
            raise Refused(advice)
        refused = None
        if callable(value):
            try:
                return f'{{"$callable": "{path_of(value)}"}}'
            except Refused as error:
                refused = error
        if self.sign is None:
            raise refused or Refused(
                f"is a {type_path(type(value))}, which has no stored form; pass plain values, "
                "or allow pickle with PGQ['allow_pickle']"
            )
        try:
            data = pickle.dumps(value)
        except Exception as error:  # __reduce__ runs the user's code
            reason = f"is a {type_path(type(value))} that cannot be pickled: {type(error).__name__}"
            raise refused or Refused(reason) from error
        self.spend(len(data))
        return f'{{"$pickle": {quote(self.sign(data))}}}'


def _moment(tag: str, iso: str, value: dt.datetime | dt.time) -> str:
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    if zone is None and not value.fold:
        return f'{{"{tag}": "{iso}"}}'
    return f'{{"{tag}": ["{iso}", {"null" if zone is None else quote(zone)}, {value.fold}]}}'


_WRITERS: dict[type, Callable[[Writer, Any, int], str]] = {
    str: Writer._str,
    int: Writer._int,
    float: Writer._float,
    list: Writer._list,
    dict: Writer.mapping,
    tuple: Writer._tuple,
    set: Writer._set,
    frozenset: Writer._set,
    dt.datetime: Writer._datetime,
    dt.date: Writer._date,
    dt.time: Writer._time,
    dt.timedelta: Writer._timedelta,
    Decimal: Writer._decimal,
    UUID: Writer._uuid,
    bytes: Writer._bytes,
    bytearray: Writer._bytes,
    memoryview: Writer._bytes,
    complex: Writer._complex,
    range: Writer._range,
    pathlib.PurePath: Writer._path,
    Unstorable: Writer._unstorable,
}
_ADVICE: tuple[tuple[Any, str], ...] = (
    (io.IOBase, "is an open file; pass its path or what it holds"),  # before Iterator, which it is as well
    (types.CoroutineType, "is a coroutine; await it first"),
    ((Iterator, types.AsyncGeneratorType), "is a generator or iterator; pass a list of its items"),
    (types.ModuleType, "is a module; pass its name"),
)
