"""The small certificate authority."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from fedproof.errors import ConfigurationError
from fedproof.keys.tls import (
    TlsFiles,
    certificate_digest,
    issue_certificate,
    load_certificate,
    make_authority,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an authority."""
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder, "test authority")
    return folder


@pytest.fixture(scope="module")
def node(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Return a node's certificate."""
    return issue_certificate(
        tmp_path_factory.mktemp("node"), authority, "node-1", hosts=["localhost", "127.0.0.1", "::1"]
    )


def _context(purpose: int, authority: Path, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority / "ca.crt")
    context.load_cert_chain(files.certificate, files.key)
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, *, host: str) -> list[str]:
    """Run a TLS handshake between the two in memory; return whom the client sees, and whom the server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    seen = [x509.load_der_x509_certificate(end.getpeercert(binary_form=True) or b"") for end in ends]
    return [certificate.subject.rfc4514_string() for certificate in seen]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_certificate_serves_both_sides(authority: Path, node: TlsFiles, tmp_path: Path, host: str) -> None:
    """Server and client know each other by the authority, under each host, and strictly by RFC 5280."""
    other = issue_certificate(tmp_path, authority, "node-2", hosts=["node-2"])
    server = _context(ssl.PROTOCOL_TLS_SERVER, authority, node)
    client = _context(ssl.PROTOCOL_TLS_CLIENT, authority, other)
    assert _shake_hands(server, client, host=host) == ["CN=node-1", "CN=node-2"]


def test_other_host_is_refused(authority: Path, node: TlsFiles) -> None:
    """A certificate does not serve for a host that it does not name."""
    server = _context(ssl.PROTOCOL_TLS_SERVER, authority, node)
    client = _context(ssl.PROTOCOL_TLS_CLIENT, authority, node)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _shake_hands(server, client, host="example.org")


def test_other_authority_is_refused(authority: Path, node: TlsFiles, tmp_path: Path) -> None:
    """A client from another authority, of the same name, does not get in."""
    make_authority(tmp_path / "other", "test authority")
    stranger = issue_certificate(tmp_path / "stranger", tmp_path / "other", "node-1", hosts=["localhost"])
    server = _context(ssl.PROTOCOL_TLS_SERVER, authority, node)
    client = _context(ssl.PROTOCOL_TLS_CLIENT, authority, stranger)
    with pytest.raises(ssl.SSLError, match=r"certificate verify failed|certificate signature failure"):
        _shake_hands(server, client, host="localhost")


def test_certificate_says_what_it_is_for(node: TlsFiles) -> None:
    """Names, hosts and life are those asked for."""
    certificate = load_certificate(node.certificate)
    assert certificate.subject.rfc4514_string() == "CN=node-1"
    assert certificate.issuer.rfc4514_string() == "CN=test authority"
    hosts = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["localhost"]
    assert hosts.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life == datetime.timedelta(days=825)


def test_keys_are_private_and_certificates_public(authority: Path, node: TlsFiles) -> None:
    """Only the owner reads a key."""
    for path, mode in (
        (authority / "ca.key", 0o600),
        (authority / "ca.crt", 0o644),
        (node.key, 0o600),
        (node.certificate, 0o644),
    ):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == mode & 0o077


@pytest.mark.parametrize("existing", ["tls.key", "tls.crt"])
def test_certificate_is_never_overwritten(authority: Path, tmp_path: Path, existing: str) -> None:
    """What lies there stays, and no half of a new pair is added to it."""
    (tmp_path / existing).write_bytes(b"old")
    with pytest.raises(ConfigurationError, match=f"{existing}: expected no file there"):
        issue_certificate(tmp_path, authority, "node-1", hosts=["localhost"])
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_bytes() == b"old"


def test_authority_is_never_overwritten(authority: Path) -> None:
    """A second authority does not take the place of the first."""
    before = (authority / "ca.key").read_bytes()
    with pytest.raises(ConfigurationError, match="expected no file there"):
        make_authority(authority, "another")
    assert (authority / "ca.key").read_bytes() == before


def test_digest_is_that_of_the_der_bytes(node: TlsFiles) -> None:
    """What a node registers is what `openssl x509 -fingerprint -sha256` prints."""
    der = ssl.PEM_cert_to_DER_cert(node.certificate.read_text())
    assert certificate_digest(node.certificate) == hashlib.sha256(der).digest()


@pytest.mark.parametrize(
    ("name", "hosts", "message"),
    [
        ("", ["localhost"], "expected 1 to 64 characters, got the name ''"),
        ("x" * 65, ["localhost"], "expected 1 to 64 characters"),
        ("node", ["bücher.example"], "expected a DNS name in ASCII or an IP address, got 'bücher.example'"),
        ("node", [], "expected at least one host, got none"),
    ],
)
def test_unusable_name_or_host_is_refused(
    authority: Path, tmp_path: Path, name: str, hosts: list[str], message: str
) -> None:
    """A name that no certificate can hold is refused, and nothing is written."""
    with pytest.raises(ConfigurationError, match=message):
        issue_certificate(tmp_path, authority, name, hosts=hosts)
    assert not list(tmp_path.iterdir())


def test_authority_of_mixed_files_is_refused(authority: Path, tmp_path: Path) -> None:
    """A key that is not the certificate's own signs nothing."""
    make_authority(tmp_path, "other")
    (tmp_path / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    with pytest.raises(ConfigurationError, match=r"ca\.key: expected the key of ca\.crt, got another"):
        issue_certificate(tmp_path / "node", tmp_path, "node", hosts=["localhost"])


@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_unreadable_authority_is_named(tmp_path: Path, name: str) -> None:
    """A missing or broken file of the authority is named."""
    make_authority(tmp_path, "authority")
    (tmp_path / name).write_text("junk")
    with pytest.raises(ConfigurationError, match=f"{name}: expected .* in PEM, got"):
        issue_certificate(tmp_path / "node", tmp_path, "node", hosts=["localhost"])
    (tmp_path / name).unlink()
    with pytest.raises(ConfigurationError, match=f"{name}: expected .* in PEM, got: No such file"):
        issue_certificate(tmp_path / "node", tmp_path, "node", hosts=["localhost"])
