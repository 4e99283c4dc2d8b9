"""A small certificate authority, for federations that have no public-key infrastructure of their own.

ECDSA on P-256, PEM files. A certificate serves both sides of a connection.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedproof.digests import Digest
from fedproof.errors import ConfigurationError
from fedproof.files import PRIVATE, PUBLIC, read_whole, write_new

# What browsers and operating systems take as the longest life of a server's certificate.
LIFETIME = datetime.timedelta(days=825)
_AUTHORITY_CERTIFICATE, _AUTHORITY_KEY = "ca.crt", "ca.key"
# Machines whose clocks run behind accept the certificate too.
_CLOCK_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a certificate and its private key lie."""

    certificate: Path
    key: Path


def make_authority(folder: Path, name: str) -> TlsFiles:
    """Make an authority's key and certificate, ``ca.key`` and ``ca.crt`` in the folder.

    Raises:
        ConfigurationError: one of the files exists; or the name is not 1 to 64 characters.
    """
    files = TlsFiles(folder / _AUTHORITY_CERTIFICATE, folder / _AUTHORITY_KEY)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    certificate = (
        _builder(subject, key, issuer=subject, issuer_key=key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(files, certificate, key)
    return files


def issue_certificate(folder: Path, authority: Path, name: str, *, hosts: Sequence[str]) -> TlsFiles:
    """Make a key and a certificate signed by the authority, ``tls.key`` and ``tls.crt`` in the folder.

    Args:
        folder: its owner's; the private key is made there and need not travel.
        authority: the folder that `make_authority` wrote into.
        name: the subject's common name.
        hosts: DNS names and IP addresses that the certificate is for.

    Raises:
        ConfigurationError: one of the files exists, the authority's files cannot be used, or a name or host
            cannot stand in a certificate.
    """
    if not hosts:
        raise ConfigurationError("certificate: expected at least one host, got none")
    files = TlsFiles(folder / "tls.crt", folder / "tls.key")
    issuer = load_certificate(authority / _AUTHORITY_CERTIFICATE)
    issuer_key = _load_key(authority / _AUTHORITY_KEY)
    if issuer_key.public_key() != issuer.public_key():
        raise ConfigurationError(
            f"{authority / _AUTHORITY_KEY}: expected the key of {_AUTHORITY_CERTIFICATE}, got another"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(_subject(name), key, issuer=issuer.subject, issuer_key=issuer_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host_name(host) for host in hosts]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    _write(files, certificate, key)
    return files


def load_certificate(path: Path) -> x509.Certificate:
    """Return the first certificate in a PEM file.

    Raises:
        ConfigurationError: no such file, or no certificate in it.
    """
    try:
        return x509.load_pem_x509_certificate(read_whole(path, "a certificate in PEM"))
    except ValueError as error:
        raise ConfigurationError(f"{path}: expected a certificate in PEM, got: {error}") from error


def certificate_digest(path: Path) -> Digest:
    """Return SHA-256 of a certificate's DER bytes: what its owner registers on the ledger.

    Raises:
        ConfigurationError: as `load_certificate`.
    """
    der = load_certificate(path).public_bytes(serialization.Encoding.DER)
    return Digest(hashlib.sha256(der).digest())


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(read_whole(path, "a private key in PEM"), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: expected an unencrypted key in PEM, got: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path}: expected an elliptic-curve key, got {type(key).__name__}")
    return key


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    start = datetime.datetime.now(datetime.UTC) - _CLOCK_SKEW
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )


def _subject(name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    except ValueError as error:
        raise ConfigurationError(
            f"certificate: expected 1 to 64 characters, got the name {name!r}"
        ) from error


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigurationError(
            f"certificate: expected a DNS name in ASCII or an IP address, got {host!r}"
        ) from error


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(files: TlsFiles, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if files.certificate.exists():
        raise ConfigurationError(
            f"{files.certificate}: expected no file there, got an existing one; it is not overwritten"
        )
    # The key first: a crash in between leaves a key without a certificate, which nobody trusts.
    write_new(files.key, pem, mode=PRIVATE)
    write_new(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=PUBLIC)
