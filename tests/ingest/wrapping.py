"""The same lines as runtimes, daemons and packers carry them, written as those do and not by what reads them again."""

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import zstandard

from ingest.detect import Detection, detect
from ingest.parse import Lanes, Progress, parse
from ingest.source import Reader, Source
from tests.ingest.logs import Row

Wrap = Callable[[list[bytes]], bytes]

STAMP: Final = "2026-11-23T11:00:00.123456789Z"


_ESCAPED_BYTE: Final = re.compile("[\udc80-\udcff]")


def text_of(data: bytes) -> str:
    """`data` as text, its bytes that are no UTF-8 as surrogate escapes: what Python's own JSON writers are given."""
    return data.decode("utf-8", "surrogateescape")


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def plain(lines: Iterable[bytes]) -> bytes:
    """A line each."""
    return b"".join(line + b"\n" for line in lines)


def _pieces(line: bytes, size: int) -> list[bytes]:
    return [line[at : at + size] for at in range(0, len(line), size)] or [b""]


def cri(lines: list[bytes], size: int = 1 << 14) -> bytes:
    """Of containerd and CRI-O: a line over `size` bytes in partial ones (Kubernetes, CRI log format)."""
    return b"".join(
        b" ".join([STAMP.encode(), b"stdout", b"F" if number == len(pieces) else b"P", piece]) + b"\n"
        for line in lines
        for pieces in [_pieces(line, size)]
        for number, piece in enumerate(pieces, 1)
    )


def docker(lines: list[bytes], size: int = 1 << 14) -> bytes:
    """Of Docker's json-file driver: the last piece of a line has its end."""
    return plain(
        json.dumps({"log": text_of(piece), "stream": "stdout", "time": STAMP}, separators=(",", ":")).encode()
        for line in lines
        for piece in _pieces(line + b"\n", size)
    )


def docker_lossy(lines: list[bytes]) -> bytes:
    """As Docker writes bytes that are no UTF-8: each as U+FFFD, which nobody can undo."""
    return plain(
        json.dumps(
            {"log": _ESCAPED_BYTE.sub("\ufffd", text_of(line + b"\n")), "stream": "stdout", "time": STAMP},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        for line in lines
    )


def journald(lines: list[bytes]) -> bytes:
    """Of `journalctl --all -o json`: what is not plain text is a list of its bytes."""
    return plain(
        json.dumps(
            {
                "__CURSOR": f"s=1;i={number:x}",
                "__REALTIME_TIMESTAMP": "1795431600123456",
                "_SYSTEMD_UNIT": "nginx.service",
                "PRIORITY": "6",
                "MESSAGE": line.decode() if _is_text(line) else list(line),
            }
        ).encode()
        for number, line in enumerate(lines)
    )


def _is_text(line: bytes) -> bool:
    try:
        return all(character >= " " or character == "\t" for character in line.decode())
    except UnicodeDecodeError:
        return False


def syslog_3164(lines: list[bytes]) -> bytes:
    """Of nginx's own syslog target."""
    return plain(b"<190>Nov 23 11:00:00 gw-1 nginx: " + line for line in lines)


def syslog_5424(lines: list[bytes]) -> bytes:
    """Of rsyslog's and syslog-ng's newer form, with structured data."""
    head = f'<190>1 {STAMP[:26]}Z gw-1 nginx 7 access [origin@32473 ip="192.0.2.1" note="a \\"b\\" \\] c"] '.encode()
    return plain(head + line for line in lines)


def json_array(lines: list[bytes]) -> bytes:
    """One array of the records, which are JSON."""
    return b"[" + b",\n".join(lines) + b"]\n"


def json_array_on_one_line(lines: list[bytes]) -> bytes:
    """As `json_array`, without a line end anywhere."""
    return b"[" + b",".join(lines) + b"]"


def indented(lines: list[bytes]) -> bytes:
    """Documents over many lines each, as `jq .` writes them."""
    return plain(
        _bytes_of(json.dumps(json.loads(text_of(line), strict=False), indent=2, ensure_ascii=False)) for line in lines
    )


def indented_array(lines: list[bytes]) -> bytes:
    """One array of the records, over many lines each."""
    return _bytes_of(
        json.dumps([json.loads(text_of(line), strict=False) for line in lines], indent=2, ensure_ascii=False)
    )


def back_to_back(lines: list[bytes]) -> bytes:
    """Records with nothing between them, as Firehose leaves them."""
    return b"".join(lines)


def crlf(lines: list[bytes]) -> bytes:
    """With the line ends of Windows."""
    return b"".join(line + b"\r\n" for line in lines)


def marked(lines: list[bytes]) -> bytes:
    """With a byte order mark."""
    return b"\xef\xbb\xbf" + plain(lines)


def utf_16(lines: list[bytes]) -> bytes:
    """As PowerShell redirects output to a file."""
    return ("\ufeff" + plain(lines).decode()).encode("utf-16-le")


def zstd(data: bytes) -> bytes:
    """One frame of zstd."""
    return zstandard.ZstdCompressor().compress(data)


def concatenated_gzip(data: bytes) -> bytes:
    """A gzip of three members, cut wherever it happens."""
    third = len(data) // 3
    return b"".join(gzip.compress(part, mtime=0) for part in (data[:third], data[third : 2 * third], data[2 * third :]))


def tar_gz(data: bytes) -> bytes:
    """A compressed tar with a folder and one log in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        folder = tarfile.TarInfo("nginx")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        member = tarfile.TarInfo("nginx/access.log")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def zip_of_gzip(data: bytes) -> bytes:
    """A zip with one log in it that is compressed itself."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("access.log.1.gz", gzip.compress(data, mtime=0))
    return packed.getvalue()


PACKERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "gzip of three members": concatenated_gzip,
    "tar.gz": tar_gz,
    "a gzip in a zip": zip_of_gzip,
}
"""Ways to pack bytes that lose none."""


@dataclass(frozen=True)
class Found:
    """What was read of a source: rows and rejects in the order of their lines, and how far."""

    rows: list[Row]
    rejects: list[Row]
    progress: Progress
    detection: Detection

    @property
    def what(self) -> list[Row]:
        """The rows but for where they come from."""
        return [{name: value for name, value in row.items() if name not in {"source_id", "line"}} for row in self.rows]

    @property
    def reasons(self) -> list[str]:
        """Why records were rejected, in their order."""
        return [reject["reason"] for reject in self.rejects]


def read(given: Source, lanes: Lanes) -> Found:
    """Everything that errata finds in `given`; that its lines add up is asserted."""
    with closing(Reader(given)) as reader:
        detection = detect(given.name, reader.head)
        progress = Progress(0, 1)
        batches = list(parse(reader, lanes, detection, "source", progress))
    rows = [row for batch in batches for part in batch.requests for row in part.rows.to_pylist()]
    rejects = [row for batch in batches for row in batch.rejects.to_pylist()]
    assert progress.lines == progress.requests + progress.rejected + progress.skipped
    assert (len(rows), len(rejects)) == (progress.requests, progress.rejected)
    return Found(_in_order(rows), _in_order(rejects), progress, detection)


def _in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (int(row["line"]), _shown(row)))


def _shown(row: dict[str, Any]) -> str:
    return str(sorted((name, str(value)) for name, value in row.items()))
