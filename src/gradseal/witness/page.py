"""The witness's page: its keys and the logs that it cosigned last, as one HTML page that needs nothing else.

Everything in it that came from outside is escaped and made printable. No script, no font, no other file or
host.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from gradseal.proof.cosignature import CosignatureKey
from gradseal.proof.note import encode_base64
from gradseal.report.words import printable
from gradseal.witness.state import Latest
from gradseal.witness.storage import Listing

MAX_SHOWN = 200
"""The most logs on the page."""

_STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; vertical-align: top }
td.size { text-align: right; font-variant-numeric: tabular-nums }
code { overflow-wrap: anywhere }
"""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'; "
    f"style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""What a browser is told: to load nothing else."""


def render(keys: Sequence[CosignatureKey], listing: Listing) -> str:
    """The page.

    Args:
        keys: The witness's.
        listing: The logs to show.
    """
    logs = [
        {
            "origin": printable(origin),
            "size": f"{latest.size:,}",
            "root": encode_base64(latest.root),
            "time": _shown_time(latest),
        }
        for origin, latest in listing.logs
    ]
    return _template().render(
        style=_STYLE,
        keys=[printable(str(key)) for key in keys],
        name=printable(keys[0].name),
        logs=logs,
        total=f"{listing.total:,}",
        is_partial=len(logs) < listing.total,
    )


def _shown_time(latest: Latest) -> str:
    try:
        return datetime.fromtimestamp(latest.timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{latest.timestamp} s"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("gradseal.witness"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html")
