"""The access log as nginx writes it with `escape=json`, and as logrotate leaves it: a file a day, the newest plain."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json.encoder import encode_basestring as json_string
from pathlib import Path
from typing import Final

import zstandard

from benchmarks.traffic.clock import SECOND, second_of
from benchmarks.traffic.simulation import Reply

Write = Callable[[bytes], object]

KEPT_BODY_BYTES: Final = 4096  # the body filter of the gateway keeps no more
HOST: Final = "api.textwire.example"


def line_of(reply: Reply) -> bytes:
    """The request's line, without its end. Bytes of a path that are not UTF-8 stay as they came."""
    call, refusal, ended_ms = reply.call, reply.refusal, reply.logged_ms
    key = call.client.key if reply.is_from_api else None
    seconds = f"{reply.latency_ms // SECOND}.{reply.latency_ms % SECOND:03}"
    retry_after = str(refusal.retry_after_s) if refusal and refusal.retry_after_s is not None else ""
    body = reply.body.encode()
    size = call.endpoint.size if reply.status < 300 else len(body)
    kept = body[:KEPT_BODY_BYTES].decode(errors="ignore") if reply.upstream_status else ""
    return (
        f'{{"time":"{second_of(ended_ms)}+00:00","msec":{ended_ms // SECOND}.{ended_ms % SECOND:03}'
        f',"remote_addr":"{call.client.ip}","method":"{call.endpoint.method}","host":"{HOST}"'
        f',"uri":{json_string(call.path)},"args":{json_string(call.args)},"status":{reply.status}'
        f',"bytes_sent":{size},"request_time":{seconds},"upstream_time":"{seconds if reply.upstream_status else ""}"'
        f',"upstream_status":"{reply.upstream_status}","user_agent":{json_string(call.client.user_agent)}'
        f',"referer":{json_string(call.referer)},"request_id":"{reply.logged_id}"'
        f',"org_id":"{key.org.org_id if key else ""}","key_id":"{key.key_id if key else ""}"'
        f',"retry_after":"{retry_after}","idempotency_key":{json_string(call.idempotency_key)}'
        f',"resp_body":{json_string(kept)}}}'
    ).encode(errors="surrogateescape")


def file_name(number: int, days: int, day: str) -> str:
    """What logrotate with `dateext` calls the file of `day`, which has that number: here zstd is quite new."""
    if number == days - 1:
        return "access.json.log"
    return f"access.json.log-{day.replace('-', '')}.{'zst' if number == days - 2 else 'gz'}"


def oddities(reply: Reply) -> Iterator[str]:
    """What makes the request's line hard to read."""
    if not reply.call.path.isascii():
        yield "path_not_utf8"
    if len(reply.body.encode()) > KEPT_BODY_BYTES:
        yield "body_cut"
    if reply.refusal is not None and reply.call.is_body_encoded_twice:
        yield "body_encoded_twice"


@contextmanager
def opened(path: Path) -> Iterator[Write]:
    """What writes to `path`, compressed as its name says; nothing in the file depends on when it was written."""
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
                yield packed.write
        elif path.suffix == ".zst":
            with zstandard.ZstdCompressor(level=12).stream_writer(raw, closefd=False) as frame:
                yield frame.write
        else:
            yield raw.write
