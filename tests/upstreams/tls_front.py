"""TLS in front of a plain origin, and the small certificate authority behind it.

    authority = Authority(folder)
    with StrictOrigin(...) as origin, TlsFront(origin.port, authority.issue("localhost")) as front:
        origin.hosts = {f"localhost:{front.port}"}
        Route("api", front.url, more={"ca_file": str(authority.certificate)})

The front passes bytes on as they are, so what the origin behind it counts and
judges is what was inside the TLS. ALPN is an argument: an origin that speaks
HTTP/2 can stand behind it as well.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import itertools
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate chain and its key, as PEM files."""

    names: tuple[str, ...]
    chain: Path
    key: Path


class Authority:
    """A root of the tests' own. `certificate` is what clients must trust."""

    def __init__(self, folder: Path, name: str = "Aegis tests") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count(1)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._root = self._build(self._name, self._key, None, (-DAY, 30 * DAY))
        self.certificate = folder / "root.pem"
        self.certificate.write_bytes(self._root.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        *names: str,
        client: bool = False,
        valid: tuple[datetime.timedelta, datetime.timedelta] = (-DAY, 10 * DAY),
    ) -> Issued:
        """A leaf for DNS names and addresses; for a client the first name is its common name.

        `valid` is from when to when, counted from now: both in the past make an expired one.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        leaf = self._build(subject, key, (names, client), valid)
        stem = self.folder / f"leaf-{next(self._numbers)}"
        chain, private = stem.with_suffix(".pem"), stem.with_suffix(".key")
        pem = serialization.Encoding.PEM
        chain.write_bytes(leaf.public_bytes(pem) + self._root.public_bytes(pem))
        pkcs8, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        private.write_bytes(key.private_bytes(pem, pkcs8, bare))
        private.chmod(0o600)
        return Issued(names, chain, private)

    def _build(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        leaf: tuple[tuple[str, ...], bool] | None,
        valid: tuple[datetime.timedelta, datetime.timedelta],
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + valid[0])
            .not_valid_after(now + valid[1])
            .add_extension(x509.BasicConstraints(ca=leaf is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(usage(signs=leaf is None), critical=True)
        )
        if leaf:
            names, client = leaf
            purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(x509.SubjectAlternativeName([general(n) for n in names]), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            builder = builder.add_extension(issuer, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


@dataclass
class Handshake:
    """One finished handshake."""

    server_name: str | None
    alpn: str | None
    #: Common name of the client's certificate.
    client: str | None


class TlsFront:
    """Terminates TLS on a port of its own and relays to a port on loopback, in a thread's own event loop."""

    def __init__(
        self,
        upstream_port: int,
        certificate: Issued,
        alpn: tuple[str, ...] = ("http/1.1",),
        clients: Authority | None = None,
        port: int = 0,
    ) -> None:
        """With `clients`, only certificates of that authority get in."""
        self.upstream_port = upstream_port
        self.name = certificate.names[0]
        self.port = port
        #: Server names asked for, whether or not the handshake was finished.
        self.hellos: list[str | None] = []
        self.handshakes: list[Handshake] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.chain, certificate.key)
        self._context.sni_callback = self._hello
        self._asked: dict[int, str | None] = {}
        if alpn:
            self._context.set_alpn_protocols(list(alpn))
        if clients:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(clients.certificate)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="tls-front", daemon=True)
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def start(self) -> TlsFront:
        self._thread.start()
        self._ready.wait()
        if self._failure:
            raise self._failure
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)

    def __enter__(self) -> TlsFront:
        return self.start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """By the certificate's first name, which must lead to loopback."""
        return f"https://{self.name}:{self.port}"

    def _hello(self, handshake: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        self.hellos.append(name)
        self._asked[id(handshake)] = name

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._stopping = asyncio.Event()
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._failure = error
            self._ready.set()
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        handshake = writer.get_extra_info("ssl_object")
        asked = self._asked.pop(id(handshake), None)
        self.handshakes.append(Handshake(asked, handshake.selected_alpn_protocol(), common_name(writer)))
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            await relay((reader, writer), (inner_reader, inner_writer))
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def relay(outer: Stream, inner: Stream) -> None:
    """Both ways, until either side ends. A reset on one side is one on the other."""
    ways = [asyncio.ensure_future(copy(outer[0], inner[1])), asyncio.ensure_future(copy(inner[0], outer[1]))]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        broken = any(way.exception() for way in done)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    for _, writer in (outer, inner):
        if broken:
            writer.transport.abort()
        else:
            writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def common_name(writer: asyncio.StreamWriter) -> str | None:
    certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return None
