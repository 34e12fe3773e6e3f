"""Where things are, and the environment that programs under test get."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = ROOT / "tests"

# A build machine may set these for everyone; then a client under test would trust,
# or go through, something the test knows nothing of.
POINTS_AT_CERTIFICATES = (
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS", "NODE_OPTIONS", "NIX_SSL_CERT_FILE", "HTTPLIB2_CA_CERTS", "PIP_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
)  # fmt: skip
POINTS_AT_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY")
# Said to the tests themselves.
OWN = ("AEGIS_BIN", "AEGIS_TEST_CACHE", "AEGIS_SDKS", "AEGIS_SDK_PYTHON", "AEGIS_FUZZ", "AEGIS_FUZZ_SEED")
PREFIXES = ("AEGIS_", "GITHUB_", "GH_")


def clean(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would bend a client, plus `extra`."""
    kept = {name: value for name, value in os.environ.items() if not bends(name)}
    kept["NO_PROXY"] = kept["no_proxy"] = "*"
    return {**kept, **(extra or {})}


def clean_this_process() -> None:
    """The same for libraries that the tests call in process (requests, PyGithub)."""
    keep = {name: os.environ[name] for name in OWN if name in os.environ}
    for name in [name for name in os.environ if bends(name)]:
        del os.environ[name]
    os.environ.update(keep)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"


def bends(name: str) -> bool:
    upper = name.upper()
    return upper in POINTS_AT_CERTIFICATES or upper in POINTS_AT_PROXIES or upper.startswith(PREFIXES)


def cache_folder() -> Path:
    """Where `tests/install.py` put things."""
    named = os.environ.get("AEGIS_TEST_CACHE")
    return Path(named).resolve() if named else ROOT / ".cache" / "tests"


def aegis() -> Path:
    """The gateway: `$AEGIS_BIN`, or the development build."""
    return Path(os.environ.get("AEGIS_BIN") or ROOT / "target" / "debug" / "aegis").resolve()


def verifier() -> Path:
    """The offline verifier, built beside the gateway."""
    return aegis().with_name("aegis-verify-receipts")


def tool(name: str) -> str:
    """A program of the system that a test cannot do without."""
    found = shutil.which(name)
    if not found:
        raise RuntimeError(f"`{name}` is needed by the tests and is not installed")
    return found
