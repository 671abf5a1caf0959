"""The parts of docs/formats.md that the files of the formats already say: one table of all, and a section for each."""

from collections.abc import Iterator
from typing import Final

from ingest.formats import FIELDS, Format, formats
from ingest.preview import codes_from, may_have

_KINDS: Final = {
    "proxy": "Proxies and web servers",
    "gateway": "API gateways",
    "cloud": "Clouds",
    "cdn": "Content delivery networks",
    "server": "Application servers",
    "generic": "Generic",
}
_CODES: Final = {("body", "code"): "body, field", ("code",): "field", ("body",): "body", (): "-"}
_WANTED: Final = {"org_id": "org", "key_id": "key", "request_id": "request id", "retry_after_s": "Retry-After"}
_UPSTREAM: Final = ("upstream_ms", "upstream_status", "answered_by")
_CONFIGURATIONS: Final = ("configure", "script")


def table() -> str:
    """What each format may say, a row each, by kind of software."""
    heads = ["format", "written by", "error code", *_WANTED.values(), "latency", "upstream"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for title, found in _by_kind():
        lines.append(f"| **{title}** |" + " |" * (len(heads) - 1))
        lines += [_row(layout) for layout in found]
    return "\n".join(lines)


def sections() -> str:
    """Every format, by kind of software: what errata gets out of it, what to know, and how to configure it."""
    return "\n\n".join(
        f"## {title}\n\n" + "\n\n".join("\n\n".join(_section(layout)) for layout in found)
        for title, found in _by_kind()
    )


def count() -> str:
    """How many formats there are, in a sentence."""
    return f"{len(formats())} formats of gateways, proxies, clouds and loggers are built in."


def _by_kind() -> Iterator[tuple[str, list[Format]]]:
    of_kind: dict[str, list[Format]] = {kind: [] for kind in _KINDS}
    for layout in formats().values():
        kind = layout.docs.get("kind", "")
        if kind not in of_kind:
            raise SystemExit(f"{layout.name}.toml: [docs] kind = {kind!r}; expected one of {', '.join(_KINDS)}")
        of_kind[kind].append(layout)
    for kind, title in _KINDS.items():
        yield title, of_kind[kind]


def _row(layout: Format) -> str:
    facts = [may_have(wanted, layout) for wanted in _WANTED]
    facts.append(layout.has("latency_ms") or layout.has("started"))
    facts.append(any(layout.has(name) for name in _UPSTREAM))
    said = [_CODES[codes_from(layout)], *("yes" if fact else "-" for fact in facts)]
    return f"| [`{layout.name}`](#{layout.name}) | {layout.title} | {' | '.join(said)} |"


def _section(layout: Format) -> Iterator[str]:
    yield f"### {layout.name}"
    fields = ", ".join(f"`{name}`" for name in FIELDS if layout.has(name))
    yield f"{layout.title}. The time is the {layout.ts_is} of the request. Fields: {fields}."
    if notes := layout.docs.get("notes", "").strip():
        yield notes
    if instead := layout.docs.get("instead"):
        yield f"[`{instead}`](#{instead}) says more: log that instead where you can."
    for name, snippet in layout.docs.items():
        if name.startswith(_CONFIGURATIONS):
            yield f"```{_language(name, layout)}\n{snippet.strip(chr(10))}\n```"


def _language(name: str, layout: Format) -> str:
    return "javascript" if name.startswith("script") else layout.docs["language"]
