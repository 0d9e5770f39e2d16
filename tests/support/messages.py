"""The messages that pgq's source can print, raise, log or store, and those that the page of troubles quotes.

A message is written as the page writes it: what is put in at run time is an ellipsis.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
GAP = "…"

_LOUD = {"warning", "error", "exception", "critical"}
#: What raises or returns a sentence, and which of its arguments that is.
_SENTENCES = {
    "CommandError": 0,
    "EnqueueError": 1,
    "Error": 0,
    "Expired": 0,
    "Finding": 2,
    "ImproperlyConfigured": 0,
    "NotAllowed": 0,
    "NotCommitted": 0,
    "NotDecodable": 0,
    "NotFinished": 0,
    "ObjectGone": 0,
    "Outdated": 0,
    "Problem": 1,
    "Refused": 0,
    "StillReferenced": 0,
    "TaskCancelled": 0,
    "TaskTimeout": 0,
    "UnknownFunction": 1,
    "UnknownOption": 1,
    "Warning": 0,
    "WorkerDied": 0,
    "WrongCall": 1,
    "_log": 2,
    "invalid": 1,
}
#: What stands before the text in each message of a kind.
_BEFORE = {"_log": f"task {GAP} ({GAP}) "}
_PLACEHOLDER = re.compile(r"%%|%(?:\(\w+\))?[-+ #0]*\d*(?:\.\d+)?[srdifgx]")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Message:
    kind: str
    text: str
    where: str


def of_source(under: str = "pgq") -> Iterator[Message]:
    """All of the Python files below a folder, but for those that are only other ones' text (`"%s"`, `f"{a}: {b}"`)."""
    for file, tree in _parsed(under):
        named = _assigned(tree)
        for node, function in _calls(tree):
            kind, argument = _sentence(node)
            for text in [] if argument is None else _texts(argument, named.get(function, {})):
                if len(re.findall(r"[A-Za-z]{2,}", text)) > 1 or re.search(r"[A-Za-z]{6}", text):
                    yield Message(kind, _BEFORE.get(kind, "") + text, f"{file}:{node.lineno}")


@cache
def _parsed(under: str) -> list[tuple[str, ast.Module]]:
    files = sorted((ROOT / under).rglob("*.py"))
    return [(str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))) for file in files]


def returned(path: str, function: str) -> set[str]:
    """What a function of a module returns for people."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    [body] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    values = [node.value for node in ast.walk(body) if isinstance(node, ast.Return) and node.value is not None]
    return {text for value in values for text in _texts(value, {}) if " " in text}


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Each call, with the name of the function around it."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[ast.Call, str]]:
        if isinstance(node, _Function):
            function = node.name
        if isinstance(node, ast.Call):
            yield node, function
        for child in ast.iter_child_nodes(node):
            yield from walk(child, function)

    return walk(tree, "")


def _assigned(tree: ast.Module) -> dict[str, dict[str, list[ast.expr]]]:
    """By function, what its names are given."""
    found: dict[str, dict[str, list[ast.expr]]] = {}
    for function in ast.walk(tree):
        if isinstance(function, _Function):
            names = found.setdefault(function.name, {})
            for node in ast.walk(function):
                for name, value in _pairs(node):
                    names.setdefault(name, []).append(value)
    return found


def _pairs(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What an assignment gives to which name: `a = 1`, `a, b = 1, 2`."""
    if isinstance(node, ast.Assign):
        target, value = node.targets[0], node.value
        both = (target.elts, value.elts) if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) else ()
        for name, given in zip(*both, strict=True) if both else [(target, value)]:
            if isinstance(name, ast.Name):
                yield name.id, given


def _sentence(node: ast.Call) -> tuple[str, ast.expr | None]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _LOUD and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "logger":
        kind, place = "log", 0
    elif name in _SENTENCES:
        kind, place = name, _SENTENCES[name]
    else:
        return "", None
    return kind, node.args[place] if len(node.args) > place else None


def _texts(node: ast.expr, names: dict[str, list[ast.expr]]) -> set[str]:
    """The texts that an expression may be; none: it is not one of its own."""
    if isinstance(node, ast.Name):
        return {text for value in names.get(node.id, []) for text in _texts(value, {})}
    if isinstance(node, ast.IfExp):
        return _texts(node.body, names) | _texts(node.orelse, names)
    if isinstance(node, ast.BoolOp):
        return {text for value in node.values for text in _texts(value, names)}
    raw = _raw(node)
    if raw is None:
        return set()
    shown = _PLACEHOLDER.sub(lambda found: "%" if found[0] == "%%" else GAP, raw)
    return {re.sub(f"{GAP}(?:{GAP})+", GAP, " ".join(shown.split()))}


def _raw(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{_raw(node.left) or GAP}{_raw(node.right) or GAP}"
    if isinstance(node, ast.Subscript):
        return _raw(node.value)
    return None


@cache
def literals(under: str = "pgq") -> set[str]:
    """Every text of the Python files below a folder, a formatted one as a whole."""
    found: set[str] = set()
    for _, tree in _parsed(under):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                found |= _texts(node, {})
    return found


def of_sql() -> str:
    """The texts of all files of migrations_sql, one after the other, with what is formatted into them as a gap."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "migrations_sql").glob("*.up.sql")))
    # Literals that stand on two lines are one; a quote inside is doubled.
    joined = re.sub(r"(?<!')'\s*\n\s*'(?!')", "", text).replace("''", "'")
    shown = re.sub(r"%%|%\d\$s|%[sLI]|%(?=[ ,;'])", lambda found: "%" if found[0] == "%%" else GAP, joined)
    return re.sub(f"{GAP}(?:{GAP})+", GAP, shown)


def findings() -> set[str]:
    """What pgq_check may say it has found."""
    body = of_sql().split("FUNCTION pgq_check(")[-1].split("COMMENT ON FUNCTION")[0]
    said = re.findall(r"detail := (.*?);\n", body, re.DOTALL) + re.findall(
        r"string_agg\((?:DISTINCT )?format\((.*?)\n", body
    )
    literals = [text.strip("; ") for part in said for text in re.findall(r"'([^']*)'", part)]
    return {text for text in literals if len(re.findall(r"[A-Za-z]{2,}", text)) > 2}


def fits(quote: str, text: str) -> bool:
    """Whether a text may be one that a page quotes: what stands between the gaps is there, in that order."""
    at = 0
    for piece in quote.split(GAP):
        found = text.find(piece, at) if piece.strip() else at
        if found < 0:
            return False
        at = found + len(piece) * bool(piece.strip())
    return True


def quoted(text: str) -> set[str]:
    """What stands as code in the first column of the tables of a page, or of a part of it."""
    found: set[str] = set()
    for line in text.splitlines():
        if line.startswith("| `"):
            first = re.split(r"(?<!\\)\|", line)[1]
            for part in first.split("<br>"):
                found.add(part.strip().strip("`").strip().replace("\\|", "|"))
    return found
