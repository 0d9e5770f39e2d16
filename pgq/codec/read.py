"""The reading half of `pgq.codec`: from tags to values. What the tags are, see there."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import importlib
import pathlib
import pickle
import reprlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pgq.errors import NotAllowed, PgqError

Reader = Callable[[Any], Any]


class NotDecodable(PgqError, ValueError):
    """The stored text cannot be turned into values here: malformed, of a newer pgq, or naming what is not installed."""


class ObjectGone(NotDecodable, LookupError):
    """The model instance that was passed is no longer in its database."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unstorable:
    """Stands for a result that could not be stored. The task succeeded all the same."""

    #: Dotted path of its class.
    type: str
    reason: str
    #: Its repr, at most 1,000 characters.
    repr: str
    #: Bytes it would have taken, where that was found out.
    size: int | None = None


class _Repr(reprlib.Repr):
    """A repr that stays short without first being long."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = self.maxdeque = 20
        self.maxstring = self.maxother = self.maxlong = limit

    def repr_bytes(self, value: bytes, _level: int) -> str:
        return self.repr_instance(value if len(value) <= self.maxother else value[: self.maxother] + b"...", 0)


def safe_repr(value: object, limit: int) -> str:
    """Return the repr of anything, cut to `limit` characters, whatever its __repr__ does."""
    try:
        return _Repr(limit).repr(value)[:limit]
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type.__getattribute__(type(value), '__name__')} without a repr>"[:limit]


def is_plain_path(path: str) -> bool:
    """Whether a path stays clear of dunders, through which one gets from any function to all of Python."""
    return all(part.isidentifier() and not part.startswith("__") for part in path.split("."))


def resolve(path: object) -> Any:
    """Import what a dotted path names.

    Raises:
        NotDecodable: there is no such thing here.
    """
    if not isinstance(path, str) or "." not in path or not is_plain_path(path):
        raise NotDecodable(f"{path!r} is not a dotted path")
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and f"{module}.".startswith(f"{error.name}."):
                continue
            raise NotDecodable(f"{path} cannot be imported: {error}") from error
        except Exception as error:  # a module runs any code when it is imported
            raise NotDecodable(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
        except AttributeError as error:
            raise NotDecodable(f"{path} cannot be found: {error}") from error
        return found
    raise NotDecodable(f"{path} cannot be imported: no module named {parts[0]!r}")


def _list_of(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError("not an array")
    return content


def _read_datetime(content: Any) -> dt.datetime:
    if isinstance(content, str):
        return dt.datetime.fromisoformat(content)
    iso, key, fold = content
    moment = dt.datetime.fromisoformat(iso)
    if key is None:
        return moment.replace(fold=fold)
    zone = ZoneInfo(key)
    local = moment.replace(tzinfo=zone, fold=fold)
    # Zone rules may differ between machines: the moment counts, not the wall clock.
    return local if local.utcoffset() == moment.utcoffset() else moment.astimezone(zone)


def _read_time(content: Any) -> dt.time:
    if isinstance(content, str):
        return dt.time.fromisoformat(content)
    iso, key, fold = content
    time = dt.time.fromisoformat(iso)
    return time.replace(tzinfo=ZoneInfo(key) if key is not None else time.tzinfo, fold=fold)


def _read_path(content: Any) -> pathlib.PurePath:
    kind, text = content
    kinds = {kind.__name__: kind for kind in (pathlib.Path, pathlib.PurePosixPath, pathlib.PureWindowsPath)}
    return kinds[kind](text)


def _read_class(content: Any) -> type:
    found = resolve(content)
    if not isinstance(found, type):
        raise NotDecodable(f"{content} is not a class")
    return found


def _read_callable(content: Any) -> Any:
    found = resolve(content)
    if not callable(found):
        raise NotDecodable(f"{content} cannot be called")
    return found


def _read_enum(content: Any) -> enum.Enum:
    path, name, *value = content
    kind = _read_class(path)
    if not issubclass(kind, enum.Enum):
        raise NotDecodable(f"{path} is not an Enum")
    return kind(*value) if name is None else kind[name]


def _read_namedtuple(content: Any) -> Any:
    path, items = content
    kind = _read_class(path)
    if not issubclass(kind, tuple) or not hasattr(kind, "_fields") or len(kind._fields) != len(items):
        raise NotDecodable(f"{path} is not a namedtuple of {len(items)} items")
    return tuple.__new__(kind, items)


def _read_dataclass(content: Any) -> Any:
    """Make the instance without its __init__, as unpickling does: what is stored are fields, not arguments."""
    path, values = content
    kind = _read_class(path)
    if not dataclasses.is_dataclass(kind):
        raise NotDecodable(f"{path} is not a dataclass")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := values.keys() - fields.keys():
        raise NotDecodable(f"{path} has no field {', '.join(sorted(unknown))}")
    instance = object.__new__(kind)
    for name, field in fields.items():
        if name in values:
            value = values[name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise NotDecodable(f"{path} has a field {name} that was not stored")
        object.__setattr__(instance, name, value)  # it may be frozen
    return instance


def _read_model(content: Any) -> Any:
    from django.apps import apps
    from django.core.exceptions import ValidationError
    from django.utils.connection import ConnectionDoesNotExist

    label, pk, using = content
    model = apps.get_model(label)
    try:
        return model._base_manager.using(using).get(pk=pk)
    except model.DoesNotExist:
        raise ObjectGone(f"{label} with pk {pk!r} is gone from database {using!r}") from None
    except (ValidationError, ConnectionDoesNotExist) as error:
        raise NotDecodable(f"{label} with pk {pk!r} cannot be loaded: {error}") from error


_READERS: dict[str, Reader] = {
    "$datetime": _read_datetime,
    "$date": dt.date.fromisoformat,
    "$time": _read_time,
    "$timedelta": lambda content: dt.timedelta(*_list_of(content)),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$float": float,
    "$int": lambda content: int(content, 16),
    "$complex": lambda content: complex(*_list_of(content)),
    "$range": lambda content: range(*_list_of(content)),
    "$path": _read_path,
    "$bytes": lambda content: base64.b64decode(content, validate=True),
    "$str": lambda content: base64.b64decode(content, validate=True).decode("utf-8", "surrogatepass"),
    "$tuple": lambda content: tuple(_list_of(content)),
    "$set": lambda content: set(_list_of(content)),
    "$frozenset": lambda content: frozenset(_list_of(content)),
    "$dict": lambda content: dict(_list_of(content)),
    "$unstorable": lambda content: Unstorable(**content),
}
#: These import modules by name or query a database: only for rows that were signed.
_TRUSTED: dict[str, Reader] = {
    "$enum": _read_enum,
    "$dataclass": _read_dataclass,
    "$namedtuple": _read_namedtuple,
    "$callable": _read_callable,
    "$class": _read_class,
    "$model": _read_model,
}


def object_hook(trusted: bool, unsign: Callable[[str], bytes] | None) -> Reader:
    """Return what a JSON decoder calls for each object, innermost first.

    Args:
        trusted: The text was signed: tags may import, load models and, with `unsign`, unpickle.
        unsign: Gives the pickle back from what `sign` made of it, or raises NotAllowed; None: pickle is not allowed.

    The hook raises NotAllowed and NotDecodable.
    """

    def unpickle(content: Any) -> Any:
        if unsign is None:
            raise NotAllowed("the row holds a pickle, and PGQ['allow_pickle'] is not set")
        data = unsign(content)
        try:
            return pickle.loads(data)  # noqa: S301  # signed, and opted in
        except Exception as error:  # unpickling runs any code
            raise NotDecodable(f"cannot be unpickled: {type(error).__name__}: {error}") from error

    readers = _READERS | (_TRUSTED | {"$pickle": unpickle} if trusted else {})

    def hook(value: dict[str, Any]) -> Any:
        if len(value) != 1:
            return value
        ((tag, content),) = value.items()
        if tag[:1] != "$":
            return value
        reader = readers.get(tag)
        if reader is None:
            if tag in _TRUSTED or tag == "$pickle":
                raise NotAllowed(f"{tag} {safe_repr(content, 50)} is read from signed rows only")
            raise NotDecodable(f"unknown tag {tag}")
        try:
            return reader(content)
        except PgqError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise NotDecodable(f"{tag} {safe_repr(content, 50)}: {type(error).__name__}: {error}") from error

    return hook


class Shown(str):
    """A dataclass for the eyes, a text. It keeps its fields apart, so that some of them can be masked."""

    path: Any
    fields: dict[str, Any]

    @classmethod
    def of(cls, path: Any, fields: dict[str, Any]) -> Shown:
        """Return the text for a dataclass of that path with these fields."""
        made = cls(f"<{path} {', '.join(f'{name}={value!r}' for name, value in fields.items())}>")
        made.path, made.fields = path, fields
        return made


_DISPLAY: dict[str, Reader] = {
    "$enum": lambda content: f"<{content[0]}.{content[1] if content[1] is not None else content[2]}>",
    "$dataclass": lambda content: Shown.of(content[0], dict(content[1].items())),
    "$namedtuple": lambda content: f"<{content[0]} {', '.join(map(repr, content[1]))}>",
    "$callable": lambda content: f"<function {content}>",
    "$class": lambda content: f"<class {content}>",
    "$model": lambda content: f"<{content[0]} {content[1]}>",
    "$zlib": lambda content: f"<compressed {len(base64.b64decode(content)):,} bytes>",
    "$pickle": lambda content: f"<pickled {len(base64.b64decode(content.rpartition(':')[2])):,} bytes>",
}


def display_hook(value: dict[str, Any]) -> Any:
    """Read a tag for the eyes: no import, no query, no unpickling, no error. What cannot be read stays as it is."""
    if len(value) != 1:
        return value
    ((tag, content),) = value.items()
    reader = _DISPLAY.get(tag) or _READERS.get(tag)
    try:
        return reader(content) if reader is not None else value
    except Exception:  # whatever a hand-made row holds, the page must open
        return value
