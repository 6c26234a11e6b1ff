"""Certificates for tests, from a CA of their own, made by the machine's openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Certificate(NamedTuple):
    """Files: a certificate, its key, and the CA that it is to be judged by."""

    cert: Path
    key: Path
    ca: Path


def make_certificate(folder: Path, name: str = "localhost") -> Certificate:
    """Make a certificate of ``name`` and 127.0.0.1, signed by itself; skips without openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make certificates with")
    cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    key.chmod(0o600)
    return Certificate(cert, key, cert)


def trusting(certificate: Certificate) -> ssl.SSLContext:
    """Return a client's context that trusts this certificate and nothing else."""
    return ssl.create_default_context(cafile=certificate.ca)
