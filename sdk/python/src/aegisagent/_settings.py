"""Where the gateway is and who asks, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import os
import ssl
from urllib.parse import SplitResult, urlsplit

import certifi

from ._errors import ConfigurationError
from ._transport import Target
from ._version import VERSION


def target_of(gateway_url: str | None, agent_token: str | None, ca_file: str | None, danger_plaintext: bool) -> Target:
    """From the arguments, or the environment for what is not given."""
    url = gateway_url if gateway_url is not None else os.environ.get("AEGIS_GATEWAY_URL", "")
    token = agent_token if agent_token is not None else os.environ.get("AEGIS_AGENT_TOKEN", "")
    roots = ca_file if ca_file is not None else os.environ.get("AEGIS_CA_FILE") or None
    parts = _checked(url, danger_plaintext)
    if not token:
        raise ConfigurationError("there is no agent token: give `agent_token` or set AEGIS_AGENT_TOKEN")
    if not all("!" <= char <= "~" for char in token):
        raise ConfigurationError("the agent token has characters that no token has")
    tls = _tls(roots) if parts.scheme == "https" else None
    return Target(
        f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/"), token, tls, f"aegisagent-python/{VERSION}"
    )


def _checked(url: str, danger_plaintext: bool) -> SplitResult:
    if not url:
        raise ConfigurationError("there is no gateway URL: give `gateway_url` or set AEGIS_GATEWAY_URL")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError("the gateway URL is not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError("the gateway URL must begin with https:// or http:// and name a host")
    # Nothing of the URL is shown: what does not belong there may be a secret.
    if "@" in parts.netloc or parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError("the gateway URL must be scheme, host, port and path, and nothing else")
    if parts.scheme == "http" and not danger_plaintext and not _is_loopback(host):
        raise ConfigurationError("plain http:// is for loopback; elsewhere use https://, or say `danger_plaintext`")
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        # Some builds of Python bring no roots of their own.
        context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigurationError(f"the CA file `{ca_file}` cannot be read or holds no certificate") from None
    return context
