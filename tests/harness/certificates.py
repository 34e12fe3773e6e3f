"""Certificates made for one test: an authority, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass
class Issued:
    """A certificate and its key as files."""

    certificate: Path
    key: Path

    def key_on_one_line(self) -> str:
        """Base64 of the DER, as a vault can hold it."""
        lines = self.key.read_text().splitlines()
        return "".join(line for line in lines if not line.startswith("-----"))


class Authority:
    """A root of its own, with its file `root`."""

    def __init__(self, folder: Path, name: str = "test root") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self.name, self._key, x509.random_serial_number())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.root = folder / f"{name.replace(' ', '-')}.pem"
        self.root.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        self._count = 0

    def server(self, *names: str) -> Issued:
        """For DNS names and addresses."""
        return self._issue(names[0], names, ExtendedKeyUsageOID.SERVER_AUTH, x509.random_serial_number())

    def client(self, name: str, serial: int | None = None) -> Issued:
        """For a client that calls itself `name`."""
        return self._issue(name, (), ExtendedKeyUsageOID.CLIENT_AUTH, serial or x509.random_serial_number())

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, serial: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )

    def _issue(self, name: str, names: tuple[str, ...], use: x509.ObjectIdentifier, serial: int) -> Issued:
        self._count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, serial)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([general(n) for n in names]), critical=False)
        stem = self.folder / f"{self._count}-{name.replace('*', 'any')}"
        issued = Issued(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        signed = builder.sign(self._key, hashes.SHA256())
        issued.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        issued.key.touch(mode=0o600)
        issued.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return issued


def general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server_context(issued: Issued, client_root: Path | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """For a server; with `client_root`, clients must show a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    if client_root:
        context.load_verify_locations(client_root)
        context.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
