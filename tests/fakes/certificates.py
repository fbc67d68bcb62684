"""A certificate authority of the tests' own, and certificates that it has signed."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority"]


class Authority:
    """Signs certificates; `file` holds its own, in PEM form."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("authority of the tests")
        self.file = folder / "authority.pem"
        limits = x509.BasicConstraints(ca=True, path_length=None)
        own = self._signed(self._name, self._key, (limits, True))
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str, days: float = 1) -> ssl.SSLContext:
        """TLS of a server with these host names, good for so many days; below 0 it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        made = self._signed(_named(names[0]), key, (alternatives, False), days)
        path = self._folder / f"{names[0]}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _signed(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extension: tuple[x509.ExtensionType, bool],
        days: float = 1,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        own, theirs = self._key.public_key(), key.public_key()
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(own)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(theirs)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(extension[0], critical=extension[1])
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(theirs), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
