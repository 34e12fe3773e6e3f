"""Certificates that hold and certificates that do not, for a server on 127.0.0.1."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harness.certificates import general

HERE = ("127.0.0.1", "localhost")
DAY = datetime.timedelta(days=1)


@dataclass
class Certificates:
    """The folder they lie in; a listener's name is the file's."""

    folder: Path

    def files(self, listen: str) -> dict[str, str] | None:
        if not listen.startswith("tls"):
            return None
        return {kind: str(self.folder / f"{listen}.{kind}") for kind in ("certificate", "key")}

    def ca(self, name: str) -> Path:
        """`good`, `other` (signed nothing here), `garbage` (no certificate at all), `missing`."""
        return self.folder / f"{name}.ca"


def make(folder: Path) -> Certificates:
    good, other = Root(folder, "good"), Root(folder, "other")
    good.issue("tls")
    good.issue("tls_expired", begins=-3 * DAY, ends=-DAY)
    good.issue("tls_not_yet", begins=DAY, ends=3 * DAY)
    good.issue("tls_wrong_name", names=("gateway.example.test", "10.9.8.7"))
    good.issue("tls_no_name", names=())
    good.issue("tls_for_clients", use=ExtendedKeyUsageOID.CLIENT_AUTH)
    other.issue("tls_other_root")
    Root(folder, "itself").issue("tls_self_signed", signed_by_itself=True)
    (folder / "garbage.ca").write_text("-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n")
    return Certificates(folder)


class Root:
    """An authority, its certificate written to `<name>.ca`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} root")])
        self.key = ec.generate_private_key(ec.SECP256R1())
        builder = builder_of(self.name, self.name, self.key, -DAY, 3 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = {field: field in ("key_cert_sign", "crl_sign") for field in USAGES}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        write(folder / f"{name}.ca", builder.sign(self.key, hashes.SHA256()))

    def issue(
        self,
        listen: str,
        names: tuple[str, ...] = HERE,
        begins: datetime.timedelta = -DAY,
        ends: datetime.timedelta = DAY,
        use: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        signed_by_itself: bool = False,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else "nobody")])
        builder = builder_of(subject, subject if signed_by_itself else self.name, key, begins, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        issuer = key if signed_by_itself else self.key
        keyed = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
        builder = builder.add_extension(keyed, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([general(n) for n in names]), critical=False)
        write(self.folder / f"{listen}.certificate", builder.sign(issuer, hashes.SHA256()))
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (self.folder / f"{listen}.key").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))


def builder_of(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begins: datetime.timedelta,
    ends: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
