"""What the service is told about TLS before it starts."""

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.x509 import load_pem_x509_certificate
from prometheus_client import REGISTRY

from models.errors import SettingsError
from service.server.tls import CIPHERS, read_certificate, tls_arguments
from service.settings import Settings
from service.telemetry.state_metrics import show_certificate


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """The files of a certificate and its key."""
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    return str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")


def refusal(certificate: object, key: object) -> str:
    with pytest.raises(SettingsError) as caught:
        tls_arguments(Settings(tls_certificate=str(certificate), tls_key=str(key)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without() -> None:
    """Without a certificate there is no TLS."""
    assert tls_arguments(Settings()) == []


def test_with(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a pair that belongs together BentoML is told where it is, from wherever it runs."""
    monkeypatch.chdir(tmp_path)
    found = tls_arguments(Settings(tls_certificate="certificate.pem", tls_key="key.pem"))
    assert found == ["--ssl-certfile", pair[0], "--ssl-keyfile", pair[1], "--ssl-ciphers", CIPHERS]


def test_suites() -> None:
    """Every suite has forward secrecy and authenticated encryption, which none older than TLS 1.2 has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(CIPHERS)
    found = context.get_ciphers()
    assert {suite["protocol"] for suite in found} == {"TLSv1.2", "TLSv1.3"}
    assert all(suite["aead"] for suite in found)
    assert all("ecdh" in suite["kea"] or suite["protocol"] == "TLSv1.3" for suite in found)


def test_missing(pair: tuple[str, str], tmp_path: Path) -> None:
    """A file that is not there is named with its variable."""
    assert refusal(tmp_path / "no", pair[1]) == f"LECTERN_TLS_CERTIFICATE: {tmp_path / 'no'}: No such file or directory"
    assert refusal(pair[0], tmp_path / "no") == f"LECTERN_TLS_KEY: {tmp_path / 'no'}: No such file or directory"
    assert refusal(pair[0], tmp_path).startswith("LECTERN_TLS_KEY: ")


@pytest.mark.timeout(10)
def test_a_pipe(pair: tuple[str, str], tmp_path: Path) -> None:
    """Nobody is waited for."""
    os.mkfifo(tmp_path / "pipe")
    reason = f"{tmp_path / 'pipe'}: expected a regular file, found a pipe"
    assert refusal(tmp_path / "pipe", pair[1]) == f"LECTERN_TLS_CERTIFICATE: {reason}"
    assert refusal(pair[0], tmp_path / "pipe") == f"LECTERN_TLS_KEY: {reason}"


def test_another_key(pair: tuple[str, str], tmp_path: Path) -> None:
    """The key of another certificate is found before the first caller finds it."""
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_pem.write_to_path(other)
    assert refusal(pair[0], other) == f"LECTERN_TLS_KEY: {other} is not the key of {pair[0]}"


def test_no_pem(pair: tuple[str, str], tmp_path: Path) -> None:
    """What is no certificate, and the two files the wrong way round, are one line."""
    text = tmp_path / "text"
    text.write_text("certificate")
    for files in (text, pair[1]), (pair[0], text), (pair[1], pair[0]):
        assert "not PEM" in refusal(*files)


def test_password(pair: tuple[str, str], tmp_path: Path) -> None:
    """A key with a password is refused; nobody is asked to type one."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(Path(pair[1]).read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    assert "the key has a password" in refusal(pair[0], locked)


def test_until_when_it_holds(tmp_path: Path) -> None:
    """The server's own serial number, and the first end in the whole chain, whichever of them it is."""
    late, soon = (datetime(year, 5, 6, tzinfo=UTC) for year in (2049, 2042))
    authority = trustme.CA()
    for ends, first in (((late, soon), soon), ((soon, late), soon)):
        chain = [authority.issue_cert(f"host-{number}", not_after=end) for number, end in enumerate(ends)]
        file = tmp_path / "chain.pem"
        file.write_bytes(b"".join(one.cert_chain_pems[0].bytes() for one in chain))
        found = read_certificate(str(file))
        own = load_pem_x509_certificate(chain[0].cert_chain_pems[0].bytes())
        assert found == (f"{own.serial_number:x}", first.timestamp())
        show_certificate(found)
        name = "lectern_tls_certificate_expiry_timestamp_seconds"
        assert REGISTRY.get_sample_value(name, {"serial": found.serial}) == first.timestamp()
