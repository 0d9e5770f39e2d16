"""The codec itself: arguments, results and options to canonical JSON text and back. See `pgq.codec`."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from pgq.codec.dotted import type_path
from pgq.codec.read import NotDecodable, Unstorable, display_hook, object_hook, safe_repr
from pgq.codec.write import LONG, MAX_BYTES, PLAIN, Refused, TooLarge, Writer, quote, sorted_keys
from pgq.errors import NotStorable, PgqError
from pgq.ground.private import make_scanner

Sign = Callable[[bytes], str]
Unsign = Callable[[str], bytes]
Scan = Callable[[str, int], tuple[Any, int]]

#: Bytes that compressed arguments may inflate to.
INFLATE_MAX = 64 << 20
#: Bytes from which compression is tried; PostgreSQL compresses what does not fit into a page in any case.
_COMPRESS_FROM = 2_000
_ZLIB_START, _ZLIB_END = '[{"$zlib": "', '"}]'
#: Characters of an Unstorable's reason and repr.
_PLACEHOLDER_TEXT = 1_000
_NOT_FOR_POSTGRES = re.compile("[\0\ud800-\udfff]")


# --- encode ---


def encode(
    value: Any,
    *,
    where: str = "value",
    strict: bool = True,
    allow_pickle: bool = False,
    sign: Sign | None = None,
    limit: int = MAX_BYTES,
) -> str:
    """Return a value as canonical JSON.

    Args:
        where: What to call the value in an error.
        strict: Refuse NUL, lone surrogates, NaN and infinities; False: tag them.
        allow_pickle: Pickle what has no tag of its own; needs `sign`.
        sign: Turns a pickle into signed text.
        limit: Bytes the JSON may have.

    Raises:
        NotStorable: The value has no stored form; the message names the place and says what to do.
    """
    try:
        return _encode(value, strict, _signer(allow_pickle, sign), limit)
    except Refused as refused:
        raise NotStorable(where, refused.message(where)) from refused.__cause__
    except RecursionError:
        raise NotStorable(where, f"{where} is nested too deep") from None


def encode_args(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    strict: bool = True,
    allow_pickle: bool = False,
    sign: Sign | None = None,
    compress: bool = False,
    limit: int = MAX_BYTES,
) -> tuple[str, str]:
    """Return args as a JSON array and kwargs as a JSON object, both canonical.

    Args:
        compress: If that is shorter, put both into args as ``[{"$zlib": "..."}]`` and leave kwargs empty.
        limit: Bytes both may have together, before compression.
        strict, allow_pickle, sign: As for `encode`.

    Raises:
        NotStorable: An argument has no stored form, or they are too large; the message names it.
    """
    args_text = _flat_array(args) if args else "[]"
    kwargs_text = _flat_object(kwargs) if kwargs else "{}"
    if args_text is None or kwargs_text is None:
        writer = Writer(strict=strict, sign=_signer(allow_pickle, sign), limit=limit)
        where = "args"
        try:
            args_text = writer.array(args)
            where = "kwargs"
            kwargs_text = writer.mapping(kwargs)
        except TooLarge:
            raise _arguments_too_large(args, kwargs, limit) from None
        except Refused as refused:
            raise NotStorable(where, refused.message(where)) from refused.__cause__
        except RecursionError:
            raise NotStorable(where, f"{where} are nested too deep") from None
    size = _size(args_text) + _size(kwargs_text)
    if size > limit:
        raise _arguments_too_large(args, kwargs, limit)
    if compress and _COMPRESS_FROM <= size < INFLATE_MAX:
        data = base64.b64encode(zlib.compress(f"[{args_text}, {kwargs_text}]".encode())).decode()
        if len(data) < size:
            return f"{_ZLIB_START}{data}{_ZLIB_END}", "{}"
    return args_text, kwargs_text


def encode_result(value: Any, *, limit: int, allow_pickle: bool = False, sign: Sign | None = None) -> str:
    """Return a result as canonical JSON, whatever it is: what cannot be stored becomes an `Unstorable`.

    Only KeyboardInterrupt leaves it. A timeout that is raised in here would be taken for the value's own doing, so it
    has to be disarmed before.

    Args:
        limit: Bytes the JSON may have. An Unstorable, of a few kB at most, is not held to it.
        allow_pickle, sign: As for `encode`.
    """
    if value is None:
        return "null"
    size = None
    try:
        return _encode(value, False, _signer(allow_pickle, sign), limit)
    except KeyboardInterrupt:
        raise
    except Refused as refused:
        reason = refused.message("result")
        size = refused.size if isinstance(refused, TooLarge) else None
    except RecursionError:
        reason = "result is nested too deep"
    except BaseException as error:  # properties, __reduce__ and the like run the user's code
        reason = f"result cannot be read: {type(error).__name__}: {safe_repr(error, _PLACEHOLDER_TEXT)}"
    return _unstorable(value, reason, size)


def canonical(stored: Any) -> str:
    """Return canonical text of what ``json.loads`` made of a stored value: tags stay tags.

    For changing a stored value without reading its tags.
    """
    if isinstance(stored, dict):
        keys = sorted(sorted(stored), key=lambda key: len(key.encode()))
        return f"{{{', '.join([f'{quote(key)}: {canonical(stored[key])}' for key in keys])}}}"
    if isinstance(stored, list):
        return f"[{', '.join([canonical(item) for item in stored])}]"
    return quote(stored) if isinstance(stored, str) else PLAIN[type(stored)](stored)


def with_kwarg(kwargs_text: str, name: str, value: str) -> str:
    """Return stored kwargs with one more, or another value of one, without reading the tags in them."""
    stored = json.loads(kwargs_text)
    if set(stored) == {"$dict"}:
        return canonical({"$dict": [pair for pair in stored["$dict"] if pair[0] != name] + [[name, value]]})
    return canonical({**stored, name: value})


def _encode(value: Any, strict: bool, sign: Sign | None, limit: int) -> str:
    plain = PLAIN.get(type(value))
    text: str | None = None
    if plain is not None:
        with contextlib.suppress(ValueError):
            text = plain(value)
    elif type(value) is list:
        text = _flat_array(value)
    elif type(value) is dict:
        text = _flat_object(value)
    if text is None:
        text = Writer(strict=strict, sign=sign, limit=limit).write(value)
    size = _size(text)
    if size > limit:
        raise TooLarge(limit, size)
    return text


def _flat_array(values: Sequence[Any]) -> str | None:
    """Write what holds plain values only, which is most of what is ever enqueued; None: it takes a `Writer`."""
    if len(values) > LONG:
        return None
    try:
        return f"[{', '.join([PLAIN[type(value)](value) for value in values])}]"
    except (KeyError, ValueError):
        return None


def _flat_object(values: dict[str, Any]) -> str | None:
    keys = sorted_keys(values)
    if keys is None or len(keys) > LONG:
        return None
    try:
        return f"{{{', '.join([f'{quote(key)}: {PLAIN[type(values[key])](values[key])}' for key in keys])}}}"
    except (KeyError, ValueError):
        return None


def _signer(allow_pickle: bool, sign: Sign | None) -> Sign | None:
    if allow_pickle and sign is None:
        raise TypeError("allow_pickle needs sign: a pickle is never stored unsigned")
    return sign if allow_pickle else None


def _size(text: str) -> int:
    """Return the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _arguments_too_large(args: tuple[Any, ...], kwargs: dict[str, Any], limit: int) -> NotStorable:
    """Return the error that names the largest argument."""
    places = {("args", f"args[{index}]"): value for index, value in enumerate(args)}
    places |= {("kwargs", f"kwargs[{key!r}]"): value for key, value in kwargs.items()}

    def size(place: tuple[str, str]) -> int:
        try:
            return _size(_encode(places[place], False, None, limit))
        except TooLarge:
            return limit + 1
        except Refused:
            return 0

    field, largest = max(places, key=size, default=("args", "args"))
    return NotStorable(
        field,
        f"{largest} is the largest of arguments that take more than {limit:,} bytes together; "
        "store the data elsewhere and pass a reference",
    )


def _unstorable(value: object, reason: str, size: int | None) -> str:
    try:
        path = type_path(type(value))
    except Exception:  # __module__ and __qualname__ can be properties of a metaclass
        path = "?"
    placeholder = Unstorable(
        type=clean_text(path, 200),
        reason=clean_text(reason, _PLACEHOLDER_TEXT),
        repr=clean_text(safe_repr(value, _PLACEHOLDER_TEXT), _PLACEHOLDER_TEXT),
        size=size,
    )
    return Writer(strict=False, sign=None, limit=MAX_BYTES).write(placeholder)


def clean_text(text: str, limit: int | None = None) -> str:
    """Make a text safe to store: U+FFFD for NUL and lone surrogates, the middle cut out if it is too long.

    Args:
        limit: Characters to keep, the mark at the cut included; None: all.
    """
    text = str.__str__(text)
    if limit is not None and len(text) > limit:
        mark = f"\n... {len(text):,} characters, cut here ...\n"[:limit]
        head = (limit - len(mark)) // 2
        tail = limit - len(mark) - head
        text = text[:head] + mark + text[len(text) - tail :]
    return _NOT_FOR_POSTGRES.sub("\N{REPLACEMENT CHARACTER}", text)


# --- decode ---


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# The bare scanner: JSONDecoder.decode runs two regular expressions for white space around it, which canonical text
# does not have. That is half of the time for a short text.
def _make_scan(hook: Callable[[dict[str, Any]], Any] | None) -> Scan:
    decoder = json.JSONDecoder(object_hook=hook, parse_constant=_refuse_constant)
    scan: Scan = make_scanner(decoder)  # type: ignore[arg-type]  # typeshed has the attributes it reads as a class
    return scan


_scan_plain = _make_scan(None)
_scan_display = _make_scan(display_hook)


@lru_cache(maxsize=8)
def _scanner(trusted: bool, unsign: Unsign | None) -> Scan:
    return _make_scan(object_hook(trusted, unsign))


def decode(text: str, *, trusted: bool = False, allow_pickle: bool = False, unsign: Unsign | None = None) -> Any:
    """Return the value of canonical JSON.

    Args:
        trusted: The text comes from a row whose signature was verified, so its tags may import and load.
        allow_pickle: Its tags may unpickle, too; needs `unsign`.
        unsign: Verifies what `sign` made and gives the pickle back, or raises NotAllowed.

    Raises:
        NotAllowed: A tag asks for what `trusted` or `allow_pickle` do not grant.
        ObjectGone: A model instance no longer exists.
        NotDecodable: The text is malformed, or names what cannot be found here.
    """
    if '"$' not in text:
        return _scan(_scan_plain, text)
    return _scan(_scanner(trusted, unsign if allow_pickle else None), text)


def _scan(scan: Scan, text: str) -> Any:
    try:
        value, end = scan(text, 0)
    except PgqError:
        raise
    except StopIteration:
        end = -1
    except (ValueError, RecursionError) as error:
        raise NotDecodable(f"not JSON that Python can read: {error}") from error
    if end != len(text):
        raise NotDecodable(f"not JSON as PostgreSQL prints it: {safe_repr(text, 50)}")
    return value


def decode_args(
    args_text: str,
    kwargs_text: str,
    *,
    trusted: bool = False,
    allow_pickle: bool = False,
    unsign: Unsign | None = None,
    limit: int = INFLATE_MAX,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return args and kwargs from what `encode_args` made of them.

    Args:
        limit: Bytes that compressed arguments may inflate to.
        trusted, allow_pickle, unsign: As for `decode`.

    Raises:
        NotAllowed, ObjectGone, NotDecodable: As for `decode`.
    """
    args: Any
    if args_text.startswith(_ZLIB_START):
        pair = decode(_inflate(args_text, limit), trusted=trusted, allow_pickle=allow_pickle, unsign=unsign)
        args, kwargs = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
    else:
        args, kwargs = decode(args_text, trusted=trusted, allow_pickle=allow_pickle, unsign=unsign), {}
    if kwargs_text != "{}":
        more = decode(kwargs_text, trusted=trusted, allow_pickle=allow_pickle, unsign=unsign)
        # Beside compressed arguments stands what was added to them since, such as a schedule's intended date.
        kwargs = kwargs | more if type(kwargs) is dict and type(more) is dict else None
    if type(args) is not list or type(kwargs) is not dict:
        raise NotDecodable("args must be an array and kwargs an object")
    return tuple(args), kwargs


def _inflate(args_text: str, limit: int) -> str:
    try:
        data = base64.b64decode(args_text[len(_ZLIB_START) : -len(_ZLIB_END)], validate=True)
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(data, limit + 1)
        if len(inflated) > limit:
            raise NotDecodable(f"args inflate to more than {limit:,} bytes")
        if not inflater.eof or inflater.unused_data:
            raise NotDecodable("args are compressed, and incomplete or followed by something else")
        return inflated.decode()
    except (ValueError, zlib.error) as error:
        raise error if isinstance(error, NotDecodable) else NotDecodable(f"args cannot be inflated: {error}") from error


def decode_for_display(text: str) -> Any:
    """Return a value for people to look at. Nothing is imported, loaded or unpickled; it raises nothing.

    Tags that would do so become texts such as ``<app.Model 5>`` or ``<pickled 123 bytes>``. A text that is not JSON is
    returned as it is.
    """
    try:
        return _scan(_scan_display, text)
    except NotDecodable:
        return text


def decode_args_for_display(args_text: str, kwargs_text: str) -> tuple[Any, Any]:
    """Return args and kwargs for people to look at, as `decode_for_display` does, inflated if compressed."""
    if args_text.startswith(_ZLIB_START):
        try:
            pair = decode_for_display(_inflate(args_text, INFLATE_MAX))
        except NotDecodable:
            pair = None
        if isinstance(pair, list) and list(map(type, pair)) == [list, dict]:
            return pair[0], pair[1]
    return decode_for_display(args_text), decode_for_display(kwargs_text)
