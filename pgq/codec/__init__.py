"""Values to JSON text and back: arguments, results, options.

What JSON has no word for becomes an object of one key that begins with ``$``, a tag: ``{"$uuid": "..."}``. A dict of
the user's with such a key is tagged itself (``$dict``), so a user's data is never taken for a tag. The tags:

============================== =====================================================================================
``$datetime $date $time``      ISO text, or [ISO text, zone or null, fold]
``$timedelta``                 [days, seconds, microseconds]
``$decimal $uuid``             text
``$float $int``                text; only floats that jsonb would change, and in hex ints of more than 1,024 bits
``$complex $range $path``      [real, imaginary], [start, stop, step], [class, text]
``$bytes $str``                base64; ``$str`` is text that PostgreSQL refuses (NUL, lone surrogates)
``$tuple $set $frozenset``     array of items
``$dict``                      array of [key, value]
``$enum``                      [dotted path, name], or [dotted path, null, value] of combined flags
``$dataclass $namedtuple``     [dotted path, fields], [dotted path, items]
``$callable $class``           dotted path
``$model``                     [label, primary key, alias of the database it is written to]; loaded anew when read
``$pickle``                    signed text, see `pgq.codec.signing.sign_blob`
``$zlib``                      base64; only as the whole of args, it holds args and kwargs
``$unstorable``                what stands for a result that could not be stored
============================== =====================================================================================

Subclasses of str, int, float, list, dict ... come back as the plain type (SafeString as str), but for Enum members and
namedtuples. bytearray and memoryview come back as bytes; a datetime whose zone is no ZoneInfo keeps its offset only.
Dicts come back in jsonb's order of keys; an OrderedDict as a dict in its own order.

The text is *canonical*: byte for byte what PostgreSQL prints for ``text::jsonb::text`` in a UTF-8 database. So a
signature made over it when enqueueing is verified over what the worker reads, with nothing encoded again.

Reading is by trust. Some tags import modules by name, load models or unpickle; without ``trusted=True``, which is for
text whose signature was verified, they raise NotAllowed. ``decode_for_display`` never does any of that.
"""

from pgq.codec.read import NotDecodable, ObjectGone, Shown, Unstorable
from pgq.codec.text import (
    INFLATE_MAX,
    canonical,
    clean_text,
    decode,
    decode_args,
    decode_args_for_display,
    decode_for_display,
    encode,
    encode_args,
    encode_result,
    with_kwarg,
)
from pgq.codec.write import MAX_BYTES, MAX_DEPTH

__all__ = [
    "INFLATE_MAX",
    "MAX_BYTES",
    "MAX_DEPTH",
    "NotDecodable",
    "ObjectGone",
    "Shown",
    "Unstorable",
    "canonical",
    "clean_text",
    "decode",
    "decode_args",
    "decode_args_for_display",
    "decode_for_display",
    "encode",
    "encode_args",
    "encode_result",
    "with_kwarg",
]
