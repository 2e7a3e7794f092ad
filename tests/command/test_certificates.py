"""Files for TLS: the message names the file and the mistake."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from trustme import LeafCert

from trio_upgrade._command.certificates import load_certificate, make_client_context
from trio_upgrade._command.errors import UsageFailed


class Files:
    """A certificate, its key, the key of another one, and the authority."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority = str(folder / "authority.pem")
        authority.cert_pem.write_to_path(self.authority)
        self.certificate, self.key = self._write(folder / "a", authority)
        _, self.other_key = self._write(folder / "b", authority)
        self.nonsense = str(folder / "nonsense.pem")
        Path(self.nonsense).write_text("nonsense\n")

    def _write(self, path: Path, authority: trustme.CA) -> tuple[str, str]:
        leaf: LeafCert = authority.issue_cert("localhost")
        certificate, key = f"{path}.pem", f"{path}.key"
        leaf.cert_chain_pems[0].write_to_path(certificate)
        leaf.private_key_pem.write_to_path(key)
        return certificate, key


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def load(certificate: str, key: str) -> None:
    load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)


def test_fitting_files(files: Files) -> None:
    """A certificate with its key is loaded, and so is an authority."""
    load(files.certificate, files.key)

    assert make_client_context(files.authority).cert_store_stats()["x509_ca"] == 1
    assert make_client_context(None).verify_mode is ssl.CERT_REQUIRED


def test_key_of_another_certificate(files: Files) -> None:
    """Both files are named."""
    with pytest.raises(UsageFailed) as caught:
        load(files.certificate, files.other_key)

    assert (
        str(caught.value) == f"{files.other_key} is not the key of {files.certificate}"
    )


def test_no_certificate_in_it(files: Files) -> None:
    """A file of another kind is named."""
    with pytest.raises(UsageFailed, match=r"nonsense\.pem .*not a certificate and its"):
        load(files.nonsense, files.key)
    with pytest.raises(UsageFailed, match=r"nonsense\.pem has no certificate in PEM"):
        make_client_context(files.nonsense)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_missing_file(files: Files, missing: int, tmp_path: Path) -> None:
    """The missing one is named: OpenSSL would not say which it is."""
    gone = str(tmp_path / "gone.pem")
    with pytest.raises(UsageFailed) as caught:
        if missing == 2:
            make_client_context(gone)
        else:
            names = [files.certificate, files.key]
            names[missing] = gone
            load(*names)

    assert str(caught.value) == f"cannot read {gone}: No such file or directory"
