"""TLS, as uvicorn is told to speak it."""

import os
import ssl
from pathlib import Path

from models.errors import SettingsError
from models.small_files import read_small_file
from service.settings import Settings
from service.telemetry.state_metrics import ServedCertificate

# Forward secrecy and authenticated encryption: suites that TLS 1.2 and 1.3 have and no older version.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# A chain of certificates has some thousand.
MOST_BYTES = 2**20


def read_certificate(file: str) -> ServedCertificate:
    """Return the certificate in a PEM file, the server's own first.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds no certificate.
    """
    from cryptography.x509 import load_pem_x509_certificates  # 10 MB that nobody needs without TLS

    chain = load_pem_x509_certificates(Path(file).read_bytes())
    return ServedCertificate(f"{chain[0].serial_number:x}", min(one.not_valid_after_utc.timestamp() for one in chain))


def tls_arguments(settings: Settings) -> list[str]:
    """Return what ``bentoml serve`` needs on its command line to speak TLS; nothing without a certificate.

    Raises:
        SettingsError: If one of the two files cannot be read or used, or they do not belong together.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if not certificate:
        return []
    for name, file in (("LECTERN_TLS_CERTIFICATE", certificate), ("LECTERN_TLS_KEY", key)):
        try:
            read_small_file(file, MOST_BYTES)
        except OSError as error:
            raise SettingsError(f"{name}: {file}: {error.strerror}") from None
    _check(certificate, key)
    files = ["--ssl-certfile", os.path.abspath(certificate), "--ssl-keyfile", os.path.abspath(key)]
    return [*files, "--ssl-ciphers", CIPHERS]


def _check(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Asked for a password, OpenSSL would wait for somebody to type it.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"LECTERN_TLS_KEY: {key} is not the key of {certificate}") from None
        reason = "they are not PEM, or the key has a password"
        raise SettingsError(f"LECTERN_TLS_CERTIFICATE, LECTERN_TLS_KEY: {certificate}, {key}: {reason}") from None
