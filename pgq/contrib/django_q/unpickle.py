"""Reading unsigned pickles, without running what they ask for.

A pickle is a program: it names functions and calls them. Here only a few harmless types can be named. Everything else
becomes a stand-in that does nothing and is shown as text, ``<shop.Order 5>``, so that the rest of the value survives.

What is handed to the unpickler must not be changeable by it either (BUILD sets attributes of anything): only types
written in C, instances without attributes, and classes made for this one pickle.
"""

from __future__ import annotations

import io
from collections import OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pgq.ground.private import PythonUnpickler

#: Characters of a stand-in's text.
_TEXT = 200
#: Nesting that is followed, and values that are, each as often as it appears.
_DEPTH, _VALUES = 200, 2_000_000


class Unreadable(ValueError):
    """The pickle is broken, or needs more than harmless types."""


class _Maker:
    """A callable that a pickle may call, but not alter."""

    __slots__ = ()


class _Set(_Maker):
    __slots__ = ()

    def __call__(self, items: Any = ()) -> set[Any]:
        return set(_given(items))


class _FrozenSet(_Maker):
    __slots__ = ()

    def __call__(self, items: Any = ()) -> frozenset[Any]:
        return frozenset(_given(items))


class _ByteArray(_Maker):
    __slots__ = ()

    def __call__(self, data: Any = b"", encoding: str = "latin-1") -> bytearray:
        # Never bytearray(10**12).
        return bytearray(data.encode("latin-1") if isinstance(data, str) else _bytes(data))


class _Range(_Maker):
    __slots__ = ()

    def __call__(self, *bounds: Any) -> range:
        return range(*bounds)


class _Encode(_Maker):
    """``_codecs.encode``, by which old protocols write bytes."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
            raise Unreadable(f"unexpected encoding {encoding!r}")
        return text.encode("latin-1")


class _Zone(_Maker):
    """How ZoneInfo is pickled: its key, and whether it was cached."""

    __slots__ = ()

    def __call__(self, key: Any, cached: Any = True) -> tzinfo:
        return ZoneInfo(key)


class _ZoneType(_Maker):
    """ZoneInfo itself, of which only `_unpickle` is asked for."""

    __slots__ = ()


class _GetAttr(_Maker):
    """``getattr``, by which methods are pickled."""

    __slots__ = ()

    def __call__(self, of: Any, name: Any, *default: Any) -> Any:
        return _Zone() if isinstance(of, _ZoneType) and name == "_unpickle" else _Attribute()


class _Utc(_Maker):
    """pytz.UTC, of old Djangos."""

    __slots__ = ()

    def __call__(self) -> tzinfo:
        return UTC


def _given(items: Any) -> Any:
    # What is written out in the pickle, not what it would compute: set(range(10**12)).
    if not isinstance(items, list | tuple | set | frozenset):
        raise Unreadable(f"a set of {type(items).__name__}")
    return items


def _bytes(data: Any) -> bytes:
    if not isinstance(data, bytes | bytearray):
        raise Unreadable(f"bytes of {type(data).__name__}")
    return bytes(data)


_HARMLESS: dict[tuple[str, str], Any] = {
    ("datetime", "datetime"): datetime,
    ("datetime", "date"): date,
    ("datetime", "time"): time,
    ("datetime", "timedelta"): timedelta,
    ("datetime", "timezone"): timezone,
    ("decimal", "Decimal"): Decimal,
    ("builtins", "complex"): complex,
    ("builtins", "set"): _Set(),
    ("builtins", "frozenset"): _FrozenSet(),
    ("builtins", "bytearray"): _ByteArray(),
    ("builtins", "range"): _Range(),
    ("__builtin__", "set"): _Set(),
    ("__builtin__", "frozenset"): _FrozenSet(),
    ("_codecs", "encode"): _Encode(),
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("__builtin__", "complex"): complex,
    ("zoneinfo", "ZoneInfo"): _ZoneType(),
    ("zoneinfo", "ZoneInfo._unpickle"): _Zone(),
    ("builtins", "getattr"): _GetAttr(),
    ("pytz", "_UTC"): _Utc(),
}
_SAFE_STRINGS = ("django.utils.safestring.SafeString", "django.utils.safestring.SafeText")
_MODEL = "django.db.models.base.model_unpickle"
#: picklefield wraps what Django's ORM would take for something else.
_WRAPPER = "picklefield.fields._ObjectWrapper"


class _Standin:
    """What stands for an object of a type that is not harmless."""

    path = "?"

    def __new__(cls, *args: Any, **kwargs: Any) -> _Standin:
        made = object.__new__(cls)
        made.args, made.state = args, None
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args: tuple[Any, ...]
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        object.__setattr__(self, "state", state)

    def __call__(self, *args: Any, **kwargs: Any) -> _Standin:
        return self

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def append(self, item: Any) -> None:
        """For subclasses of list."""

    def extend(self, items: Any) -> None:
        """For subclasses of list."""

    def add(self, item: Any) -> None:
        """For subclasses of set."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """For subclasses of dict."""


class _Attribute(_Standin):
    """Some attribute of something."""


class _Unpickler(PythonUnpickler):
    """Reads a pickle and calls nothing that it names."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.refused: dict[str, type[_Standin]] = {}

    def find_class(self, module: str, name: str) -> Any:
        harmless = _HARMLESS.get((module, name))
        if harmless is not None:
            return harmless
        path = f"{module}.{name}"
        if path not in self.refused:
            self.refused[path] = type("_Standin", (_Standin,), {"path": path})
        return self.refused[path]

    def persistent_load(self, pid: Any) -> Any:
        raise Unreadable("it refers to something outside of it")


def load(data: bytes) -> tuple[Any, list[str]]:
    """Return the value of a pickle, and the dotted paths of what was replaced by text in it.

    Raises:
        Unreadable: It is broken, or cannot be put together without what was refused.
    """
    reader = _Unpickler(data)
    try:
        raw = reader.load()
        value = _Plain(reader.refused).convert(raw)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("it is nested too deep") from None
    except Exception as error:  # a broken pickle raises anything
        named = f", and it names {', '.join(sorted(reader.refused))}" if reader.refused else ""
        raise Unreadable(f"{type(error).__name__}: {error}{named}"[:500]) from None
    return value, sorted(path for path in reader.refused if path not in _RESTORED)


#: Stand-ins that become the real value.
_RESTORED = ("uuid.UUID", "uuid.SafeUUID", *_SAFE_STRINGS, _WRAPPER)


class _Plain:
    """Turns stand-ins into text, and containers into plain ones."""

    def __init__(self, refused: dict[str, type[_Standin]]) -> None:
        # Not by an attribute of the class, which the pickle could have changed.
        self.paths: dict[type, str] = {made: path for path, made in refused.items()}
        self.paths[_Attribute] = "builtins.getattr"
        self.done: dict[int, Any] = {}
        self.sizes: dict[int, int] = {}

    def convert(self, value: Any, depth: int = 0) -> Any:
        if depth > _DEPTH:
            raise Unreadable("it is nested too deep")
        if isinstance(value, _Standin):
            return self._standin(value, depth)
        if isinstance(value, type):
            return f"<{self.paths.get(value, value.__name__)}>"[:_TEXT]
        if isinstance(value, _Maker):
            return f"<{type(value).__name__.strip('_').lower()}>"
        if not isinstance(value, list | tuple | dict | set | frozenset):
            return value
        # The same list twice stays one list, or a small pickle could become a large value.
        known = self.done.get(id(value))
        if known is None:
            known = self.done[id(value)] = self._container(value, depth + 1)
        return known

    def _container(self, value: Any, depth: int) -> Any:
        made = self._items(value, depth)
        inner = [*value.values(), *value] if isinstance(value, dict) else value
        size = self.sizes[id(value)] = 1 + sum(self.sizes.get(id(item), 1) for item in inner)
        if size > _VALUES:
            raise Unreadable(f"it holds more than {_VALUES:,} values")
        return made

    def _items(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {self.convert(key, depth): self.convert(item, depth) for key, item in value.items()}
        items = [self.convert(item, depth) for item in value]
        return items if isinstance(value, list) else type(value)(items)

    def _standin(self, value: _Standin, depth: int) -> Any:
        path = self.paths.get(type(value), "?")
        args, state = value.__dict__.get("args", ()), value.__dict__.get("state")
        if path == "uuid.UUID" and isinstance(state, dict) and isinstance(state.get("int"), int):
            return UUID(int=state["int"])
        if path in _SAFE_STRINGS and args and isinstance(args[0], str):
            return args[0]
        if path == _WRAPPER and isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            return self.convert(state[1].get("_obj"), depth + 1)
        if path == _MODEL and args and isinstance(args[0], tuple):
            path = ".".join(str(part) for part in args[0])
            args = (state.get("id", state.get("pk", "")),) if isinstance(state, dict) else ()
        words = [str(arg) for arg in args[:3] if isinstance(arg, str | int | float)]
        return f"<{' '.join([path, *words])}"[: _TEXT - 1] + ">"
