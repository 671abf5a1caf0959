r"""What secrets and personal data look like in text: patterns of RE2, and the escapings that they hide behind.

Knows the published shapes of keys (those of gitleaks and detect-secrets) and how telephone numbers are grouped (as the
metadata of libphonenumber has it). Knows no gateway and no column.
"""

import re
from dataclasses import dataclass
from html import unescape
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

_STAGE: Final = "_(?:live|test|prod|sandbox)_"
# One tail for all prefixes: RE2 compiles a counted repetition as often as it is counted.
_TAIL: Final = r"[A-Za-z0-9_-]{16,}(?:[.+/=~][A-Za-z0-9_-]+)*"

PREFIXES: Final = {
    "AWS access key": "(?:AKIA|ASIA|ABIA|ACCA|A3T[0-9A-Z])",
    "Anthropic and OpenAI keys": r"\bsk-",
    "Atlassian token": "ATATT3",
    "DigitalOcean token": "do[opr]_v1_",
    "Docker token": "dckr_",
    "GitHub token": "gh[pousr]_|github_pat_",
    "GitLab token": r"\bgl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-",
    "Google API key": "AIza",
    "Google OAuth token": r"ya29\.",
    "Google client secret": "GOCSPX-",
    "Grafana token": "gl(?:c|sa)_",
    "HashiCorp Vault token": r"hv[bsr]\.",
    "Hugging Face token": r"\bhf_",
    "Mailgun key": r"\bkey-",
    "Postman key": "PMAK-",
    "PyPI token": "pypi-AgE",
    "SendGrid key": r"\bSG\.",
    "Sentry token": "sntry[su]_",
    "Shopify token": "shp(?:at|ca|pa|ss)_",
    "Square token": "sq0[a-z]{3}-",
    "age key": "AGE-SECRET-KEY-1",
    "npm token": "npm_",
}
"""Secrets that are known by what they begin with; letters and digits follow."""


@dataclass(frozen=True)
class Shape:
    """One kind of secret: the text that always is in it, and the whole of it, both as patterns."""

    marker: str
    pattern: str


SHAPES: Final = {
    "key with its stage: Stripe and others": Shape(
        _STAGE, rf"[A-Za-z]{{0,3}}k{_STAGE}[A-Za-z0-9]{{4,}}|[A-Za-z]{{2,8}}{_STAGE}[a-z]*[0-9A-Z][A-Za-z0-9]{{3,}}"
    ),
    "Slack token": Shape("xox|xapp-", "(?:xox[abceprs][.-]|xapp-)[A-Za-z0-9-]{8,}"),
    "webhook of Slack, Discord, Teams or Zapier": Shape(
        r"hooks\.|/webhook|/services/T",
        r"hooks\.(?:slack|zapier)\.com/[a-z]+/[A-Za-z0-9_/-]+|/api/webhooks/[0-9]+/[A-Za-z0-9_-]+"
        r"|webhook\.office\.com/[A-Za-z0-9@_/-]+|/webhookb2/[A-Za-z0-9@_/-]+|/services/T[0-9A-Z]+/B[0-9A-Z]+/[A-Za-z0-9]+",
    ),
    "webhook secret": Shape("whsec_", r"whsec_[A-Za-z0-9+/=]{8,}"),
    "Twilio API key": Shape(r"\bSK[0-9a-f]{8}", r"\bSK[0-9a-f]{32}\b"),
    "Mailchimp key": Shape("-us[0-9]", "[0-9a-f]{32}-us[0-9]+"),
    "Azure client secret": Shape("[0-9]Q~", r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]+"),
    "Databricks token": Shape("dapi[0-9a-f]{4}", "dapi[0-9a-f]{32}"),
    "Telegram bot token": Shape(":AA", "[0-9]{8,10}:AA[A-Za-z0-9_-]{20,}"),
    "JSON in base64: JWT": Shape("eyJ", r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*"),
    "private key": Shape(
        "-----BEGIN", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----[^-]*(?:-----END [A-Z0-9 ]*-----)?"
    ),
    "HTTP authentication": Shape(
        r"(?i:bearer|basic)[ +]",
        r"(?i:\b(?:bearer|basic)[ +]+)(?:[A-Za-z._~-]*[0-9+/=][A-Za-z0-9+/=._~-]*"
        r"|[A-Za-z]*[a-z][A-Z][A-Za-z0-9+/=._~-]*|[A-Za-z._~-]{17,})",
    ),
}
"""Secrets that are known by more than a prefix."""

_PASSWORDS: Final = "(?i:secret|passw(?:or)?d|passphrase|pwd)"
_NAMED: Final = (
    "(?i:key|token|secret|passw(?:or)?d|passphrase|pwd|signature|credential"
    r"|session[_-]?id|\bsig|\botp|\bpin)s?"
)
_QUOTE: Final = r"\\*[\"']?"
_VALUE: Final = r"[^\s\"'&,;<>)]"
# In prose a word may follow ("sort key: created_at"), unless it is a password that is told.
_ASSIGNED: Final = (
    rf"({_NAMED}(?:{_QUOTE} ?=|\\*[\"'] ?:) ?{_QUOTE}|{_PASSWORDS} ?: ?{_QUOTE}){_VALUE}{{4,}}"
    rf"|((?:{_NAMED}|(?i:authorization)) ?: ?{_QUOTE}(?:(?i:token|apikey) +)?){_VALUE}*(?:[0-9]|[a-z][A-Z]){_VALUE}*"
)
# Not the Idempotency-Key, which is no secret.
_SAID: Final = (
    r"(?i:((?:^|[^a-z-])(?:(?:api|access|secret)[ _-]?)?(?:key|token|secret|password) [\"'`]?)"
    r"[a-z]{0,24}[0-9][a-z0-9]{15,})"
)
_USER_INFO: Final = r"(://)[^/\s@\"'<>]+?@"
_WIDE: Final = r"A-Za-z0-9\x{80}-\x{10FFFF}"
_EMAIL: Final = rf"[{_WIDE}._%+'-]+@[{_WIDE}-]+(?:\.[{_WIDE}-]+)+"

_GAP: Final = r"[ ().\x{2D}/\x{A0}\x{2010}-\x{2015}\x{202F}]"
_THIN_GAP: Final = r"[ \x{2D}\x{A0}\x{2010}-\x{2015}\x{202F}]"
# Dates and UUIDs are grouped as telephone numbers are; a character that no log has keeps them apart.
_APART: Final = "\x1f"
_START: Final = f"(^|[^A-Za-z0-9{_APART}])"
_INTERNATIONAL: Final = rf"{_GAP}?[1-9](?:{_GAP}{{0,3}}[0-9]){{6,14}}"
_DIGITS: Final = rf"{_START}[0-9]{{10,}}(?:\b|_)"
_NATIONAL: Final = (
    rf"{_START}(?:[0-9]{{1,2}}{_GAP})?\(?[0-9]{{3}}{_GAP}{{1,2}}[0-9]{{3}}{_GAP}[0-9]{{4}}"
    rf"|{_START}\(?0[0-9]{{1,4}}{_GAP}{{1,3}}[0-9]{{2,4}}(?:{_GAP}?[0-9]{{2,4}}){{1,3}}"
)
# An area code in brackets, three groups and more, and two. Fewer than seven digits may be anything.
_GROUPS: Final = (
    rf"(?:[0-9]{_THIN_GAP})?\([0-9]{{1,5}}(?:{_THIN_GAP}[0-9]{{1,3}})?\){_THIN_GAP}?[0-9]{{1,8}}(?:{_THIN_GAP}[0-9]{{2,5}}){{0,3}}",
    rf"[0-9]{{3,5}}{_THIN_GAP}[0-9]{{1,4}}{_THIN_GAP}[0-9]{{2,5}}(?:{_THIN_GAP}?[0-9]{{2,4}}){{0,2}}",
    rf"[0-9]{{2}}{_THIN_GAP}[0-9]{{3,5}}{_THIN_GAP}[0-9]{{2,4}}(?:{_THIN_GAP}?[0-9]{{2,4}}){{0,2}}",
    rf"[0-9]{_THIN_GAP}[0-9]{{3,4}}{_THIN_GAP}(?:[0-9]{{2}}{_THIN_GAP}[0-9]{{2,4}}|[0-9]{{3,4}})(?:{_THIN_GAP}?[0-9]{{2,4}}){{0,2}}",
    rf"[0-9]{{1,2}}(?:{_THIN_GAP}[0-9]{{2}}){{2}}(?:(?:{_THIN_GAP}[0-9]{{2}}){{1,2}}|{_THIN_GAP}[0-9]{{3,5}})",
    "[0-9] [0-9]{2} [0-9]{6}",
    rf"[0-9]{{2}}{_THIN_GAP}[0-9]{{2}}{_THIN_GAP}(?:[0-9]{{3,5}}(?:{_THIN_GAP}[0-9]{{3,4}})?|[0-9] [0-9]{{5}})",
    rf"[0-9]{{3,4}}{_THIN_GAP}[0-9]{{4,8}}|[0-9]{{2,6}}{_THIN_GAP}[0-9]{{5,10}}",
    "[0-9]{4} [0-9]{3}|[0-9] [0-9]{6,7}",
)
_GROUPED: Final = rf"(^|[^A-Za-z0-9.{_APART}-])(?:{'|'.join(_GROUPS)})\b"
_CALLED: Final = (
    r"((?i:phone|mobile|msisdn|tel|fax|whatsapp|number|recipient|caller)[^A-Za-z0-9]{1,4}"
    r"|(?i:\b(?:to|from)[\"'\\]{0,4} ?[=:] ?[\"'\\\[]{0,5}))[0-9]{6,9}\b"
)
# Base64 and hexadecimal of printable ASCII, and of digits: what each letter may be follows from the bits of the bytes.
_LETTER: Final = "[A-Za-z0-9+/_-]"
_OF_TEXT: Final = f"(?:[I-Za-f][C-HS-Xi-ny-z0-3][ABEFIJMNQRUVYZcdghklopstwx014589]{_LETTER})"
_OF_DIGITS: Final = "(?:[IK-O][CDSTijyz][AEIMQUYcgkosw048][go-rtw-z0-5])"  # and of what stands between them
_BASE64: Final = f"(?:{_OF_TEXT}{{4}}|{_OF_DIGITS}{{2}})"
_HEX: Final = r"\b(?:[2-7][0-9A-Fa-f]){10,}\b|(?:3[0-9]|2[0-9BDbd]){7,}"
# An id is such a text by chance, too: of sixteen letters one in ten thousand, of twenty-four one in ten million. Begun
# at every letter these patterns have more states than RE2 keeps, and take twenty times as long.
_IN_ID: Final = (
    rf"(?:^|[^A-Za-z0-9])(?:{_OF_TEXT}{{6}}|(?:[A-Za-z0-9+]{{4}})*{_OF_DIGITS}{{2}}"
    r"|(?:[2-7][0-9A-Fa-f]){16,}\b|(?:3[0-9]|2[0-9BDbd]){7,})"
)
_DATE: Final = r"\b((?:19|20)[0-9]{2})-([01][0-9])-([0-3][0-9])"
_DAY_FIRST: Final = r"\b([0-3][0-9])-([01][0-9])-((?:19|20)[0-9]{2})\b"
_UUID: Final = r"\b([0-9A-Fa-f]{8})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{12})\b"

_IN_PATH: Final = (
    r"/(?:[0-9]{3,4}-[0-9]{4,7}|[0-9]{2,5}-[0-9]{5,8}|[0-9]{1,4}-[0-9]{3,4}-[0-9]{2,4}(?:-[0-9]{2,4}){0,2}"
    r"|[0-9]{1,2}(?:-[0-9]{2}){3,4})(?:/|$)|/(?i:numbers?|phones?|msisdns?|mobiles?|tel|recipients|contacts)/[0-9]{6,}"
)

CREDENTIAL: Final = "|".join(
    (f"(?:{'|'.join(PREFIXES.values())}){_TAIL}", *(shape.pattern for shape in SHAPES.values()))
)
MASKS: Final = (
    (_USER_INFO, r"\1[secret]@"),
    (CREDENTIAL, "[secret]"),
    (_ASSIGNED, r"\1\2[secret]"),
    (_SAID, r"\1[secret]"),
    (_EMAIL, "[email]"),
    (rf"\+{_INTERNATIONAL}", "[phone]"),
    (_DATE, rf"\1{_APART}\2{_APART}\3"),
    (_DAY_FIRST, rf"\1{_APART}\2{_APART}\3"),
    (_UUID, _APART.join(rf"\{number}" for number in range(1, 6))),
    (rf"\b00{_INTERNATIONAL}", "[phone]"),
    (_GROUPED, r"\1[phone]"),
    (_NATIONAL, r"\1\2[phone]"),
    (_DIGITS, r"\1[phone]"),
    (_CALLED, r"\1[phone]"),
    (rf"\[phone\](?:{_THIN_GAP}[0-9]{{1,6}}\b)+", "[phone]"),
    (f"{_LETTER}*{_BASE64}{_LETTER}*={{0,2}}", "[encoded]"),
    (_HEX, "[encoded]"),
    (_APART, "-"),
)
"""Patterns and what is put in their place, in the order in which they are to be applied to a text."""

ESCAPED: Final = r"%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|&#?[A-Za-z0-9]{2,6};"
"""What a text has in it that may say something else to whoever undoes its escapings."""

_MARKERS: Final = "|".join((*PREFIXES.values(), *(shape.marker for shape in SHAPES.values())))
SUSPICIOUS: Final = "|".join(
    (
        rf"@|{ESCAPED}|\+{_GAP}?[1-9]|[0-9](?:{_GAP}|[0-9]){{6,}}[0-9]|{_CALLED}",
        _MARKERS,
        rf"(?:{_NAMED}|(?i:authorization)){_QUOTE} ?[=:]|(?i:key|token|secret|password) [\"'`]?[A-Za-z]{{0,24}}[0-9]",
        _BASE64,
        _HEX,
    )
)
"""One cheap look decides for most values that nothing can be in them."""

UNSAFE_ID: Final = (
    rf"@|%|\\|&|^\+|\+[0-9]{{7}}|\s|{CREDENTIAL}|{_NAMED}=|^(?:[A-Za-z]+[:_=/-])?(?:{_NATIONAL}|{_GROUPED})$"
    rf"|{_IN_ID}"
)
"""What an id has in it that is none, or that says more than who or which."""

SUSPICIOUS_ID: Final = (
    rf"[^A-Za-z0-9_:./=-]|{_MARKERS}|{_NAMED}=|^(?:[A-Za-z]+[:_=/-])?[0-9]{{1,5}}[./-][0-9./-]+$|{_IN_ID}"
)
"""As `SUSPICIOUS`, for `UNSAFE_ID`."""
LONGEST_ID: Final = 128

_NO_PATH: Final = r"[^A-Za-z0-9/_.~{}-]|(?:^|[^A-Za-z0-9])[0-9]{10,15}(?:[^A-Za-z0-9]|$)"
UNSAFE_PATH: Final = (rf"{_NO_PATH}|{_IN_PATH}|{_NATIONAL}|{_BASE64}|{_HEX}", CREDENTIAL)
"""What the path of a request has in it that is more than words and ids: one of these patterns."""

SUSPICIOUS_PATH: Final = (
    rf"{_NO_PATH}|(?:^|[^A-Za-z0-9])[0-9]{{1,5}}[./-]{{1,2}}[0-9]|[A-Za-z]/[0-9]{{6}}|{_MARKERS}|{_BASE64}|{_HEX}"
)
"""As `SUSPICIOUS`, for `UNSAFE_PATH`."""

PLACEHOLDER_KEY: Final = (
    r"(?i)[^a-z0-9]*(?:(?:your|my|the|insert|enter|replace|put|add|paste|use|set|with|here|goes|api|app|secret|access|auth"
    r"|private|public|live|prod|integration|client|service|bearer|key|token|password|credentials?|value|string|process|env"
    r"|test|testing|demo|sample|example|dummy|fake|foo|bar|baz|placeholder|change|me|todo|tbd|fixme|undefined|null|none|nil"
    r"|nan|true|false|object|empty|missing|unset|default|sk|pk|x{3,}|0{4,}|1234(?:5678?9?0?)?|abc(?:def)?(?:123)?)[^a-z0-9]*)+"
)
"""What a presented key is, whole, that is only the name of one, an example or an empty variable: YOUR_API_KEY."""

_UNICODE: Final = re.compile(r"\\+u([0-9A-Fa-f]{4})|\\+x([0-9A-Fa-f]{2})")
_DEEPEST: Final = 5


def mask_texts(texts: pa.Array) -> pa.Array:
    """`texts`, of type string, with what is secret or personal in them masked; the others stay as they are."""
    return masked_and_plain(texts)[0]


def masked_and_plain(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """As `mask_texts`, and each text that was masked with its escapings undone, null for the others."""
    nothing = pa.nulls(len(texts), pa.string())
    is_suspicious = pc.match_substring_regex(texts, SUSPICIOUS).fill_null(False)
    if not pc.any(is_suspicious).as_py():
        return texts, nothing
    given = texts.filter(is_suspicious)
    plain = _unescaped_texts(given)
    masked = plain
    for pattern, replacement in MASKS:
        masked = pc.replace_substring_regex(masked, pattern, replacement)
    is_same = pc.equal(plain, masked)
    return (
        pc.replace_with_mask(texts, is_suspicious, pc.if_else(is_same, given, masked)),
        pc.replace_with_mask(nothing, is_suspicious, pc.if_else(is_same, pa.scalar(None, pa.string()), plain)),
    )


def _unescaped_texts(texts: pa.Array) -> pa.Array:
    is_escaped = pc.match_substring_regex(texts, ESCAPED)
    if not pc.any(is_escaped).as_py():
        return texts
    plain = pa.array([unescaped(text) for text in texts.filter(is_escaped).to_pylist()], pa.string())
    return pc.replace_with_mask(texts, is_escaped, plain)


def unescaped(text: str) -> str:
    """`text` with percent-encoding, the escapes of JSON and nginx, and entities of HTML undone, as deep as they go."""
    for _ in range(_DEEPEST):
        plainer = _UNICODE.sub(lambda match: chr(int(match[1] or match[2], 16)), unescape(unquote(text)))
        if plainer == text:
            break
        text = plainer
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
