"""JSON objects out of a stream of them, however they follow each other: a line each, back to back, in arrays, indented.

Knows where a JSON value ends. Knows nothing of what it says.
"""

import json
import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON object of a stream: where it starts in the bytes given, and its bytes.

    `is_whole` is False for what is no JSON: a torn object, or what lies between objects.
    """

    offset: int
    data: bytes
    is_whole: bool


def split(data: bytes, *, is_end: bool) -> tuple[list[Document], int]:
    """The JSON objects in `data`, and how many bytes of `data` they and the separators between them took.

    What may go on after `data` is left for the next call, unless `is_end` says that nothing follows, or that the caller
    will hold no more. `[`, `,`, `]` and blanks outside objects are separators: elements of an array come one by one.

    Broken text is one document up to the next line that starts with `{` or `[` and is no deeper indented, or up to a
    `}{` where another object starts: what is inside of a torn object is no record. Never raises, whatever the bytes.
    """
    documents: list[Document] = []
    taken, window = 0, _WINDOW
    while taken < len(data):
        is_last = taken + window >= len(data)
        text = data[taken : taken + window].decode("utf-8", "surrogateescape")
        extents, used = _extents(text, is_end=is_end and is_last)
        if is_last and not used:
            break
        done, offset = 0, taken
        for start, end, is_whole in extents:
            offset += _byte_length(text[done:start])
            part = text[start:end].encode("utf-8", "surrogateescape")
            documents.append(Document(offset, part, is_whole))
            offset += len(part)
            done = end
        taken = offset + _byte_length(text[done:used])
        window = _WINDOW if used else window * 4
    return documents, taken


def is_document_stream(head: bytes) -> bool:
    """Whether a source that starts with `head` must be read by `split` rather than line by line.

    It must where its first value goes on over more lines than one, or where more follow on the same line. A line that
    is torn does not make it so, nor one that is longer than `head`.
    """
    text = head.decode("utf-8", "surrogateescape").lstrip("\ufeff \t\r\n")
    if text.startswith("["):
        return _ARRAY.match(text) is not None and not _is_json(text.partition("\n")[0])
    while text.startswith("{"):
        try:
            end = _DECODER.raw_decode(text)[1]
        except json.JSONDecodeError as error:
            if _may_go_on(error, text):
                return "\n" in text.rstrip()
        except RecursionError:
            return False
        else:
            return "\n" in text[:end] or text.startswith(("{", "["), _after(_SEPARATED, text, end))
        text = text.partition("\n")[2].lstrip()
    return False


_WINDOW: Final = 1 << 14  # an error costs as much time as the text before it is long
_LEAST_TOO_DEEP: Final = 512
# Only the end of a value is of interest, so integers become floats: the digits of an integer are limited.
_DECODER: Final = json.JSONDecoder(strict=False, parse_int=float)
# Some forwarders end a record with a backslash and the letter n, and mean the end of a line.
_SEPARATORS: Final = re.compile(r"(?:[\s,\[\]\ufeff\0]|\\n)*")
_SEPARATED: Final = re.compile(r"(?:[ \t\r,]|\\n)*")
_NEXT: Final = re.compile(r'\n([ \t]*)(?=[{\[])|\}(?=\{")')
_CUT: Final = re.compile(r"[\w.+\-\\\s]{0,16}\Z")  # the start of a literal, a number or an escape
_ARRAY: Final = re.compile(r"\[\s*(?:[{\[\]]|\Z)")


def _byte_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _is_json(text: str) -> bool:
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _extents(text: str, *, is_end: bool) -> tuple[list[tuple[int, int, bool]], int]:
    """Where each document of `text` starts and ends and whether it is whole, and how much of `text` is settled."""
    found = []
    done = 0
    while (start := _after(_SEPARATORS, text, done)) < len(text):
        extent = _extent(text, start, is_end=is_end)
        if extent is None:
            break
        done = extent[1]
        found.append(extent)
        if not extent[2] and len(text) > _WINDOW:
            return found, done
    if is_end:
        return found, len(text)
    # The indent of what comes next decides where it ends if it is broken, so it stays with it.
    line = done + len(text[done:start].rstrip(" \t"))
    return found, line - 1 if done < line < start and text[line - 1] == "\n" else start


def _after(separators: re.Pattern[str], text: str, start: int) -> int:
    match = separators.match(text, start)
    return match.end() if match else start


def _extent(text: str, start: int, *, is_end: bool) -> tuple[int, int, bool] | None:
    """The document at `start`; None where more text may change it."""
    after = start
    if text[start] == "{":
        try:
            return start, _DECODER.raw_decode(text, start)[1], True
        except json.JSONDecodeError as error:
            if not is_end and _may_go_on(error, text):
                return None
            after += 1
        except RecursionError:
            after += _LEAST_TOO_DEEP
    end = _next(text, start, after)
    if end is None and not is_end:
        return None
    return start, start + len(text[start:end].rstrip()), False


def _may_go_on(error: json.JSONDecodeError, text: str) -> bool:
    """Whether all that is wrong may be that `text` ends: inside a string, a number or a literal, or between them."""
    return error.msg.startswith("Unterminated string") or _CUT.match(text, error.pos) is not None


def _next(text: str, start: int, after: int) -> int | None:
    """Where behind `after` the next object starts, when what is at `start` is broken."""
    line = text.rfind("\n", 0, start) + 1
    indent = start - line if line and not text[line:start].strip(" \t") else 0
    ends = (found.end() for found in _NEXT.finditer(text, after) if len(found[1] or "") <= indent)
    return next(ends, None)
