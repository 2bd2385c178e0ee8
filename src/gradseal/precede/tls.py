"""What a server's certificate is held against: the certificate authorities that httpx comes with.

Nothing is taken from the environment.
"""

from __future__ import annotations

import functools
import ssl

import httpx


@functools.cache
def tls() -> ssl.SSLContext:
    """Made once: reading the certificate authorities takes longer than a request."""
    return httpx.create_ssl_context(trust_env=False)
