"""Signatures: other people's programs accept ours, and nothing that was changed, foreign or re-encoded."""

import base64
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.errors import InputError, PlacementError
from astolfo.files import write_sidecar
from astolfo.provenance.attestation import attestation_path
from astolfo.provenance.sign import PAYLOAD_TYPE, Trust, check, envelope_path, sign, signature_path
from tests.conftest import SMALL

pytest.importorskip("securesystemslib", reason="the extra for evidence is not installed: make evidence")

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the keys of these tests")


def openssl(*arguments, check=True):
    return subprocess.run([OPENSSL, *map(str, arguments)], capture_output=True, text=True, check=check)


def keys(folder, name, curve="prime256v1"):
    """A private and a public key as PEM files, made by openssl."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", private)
    openssl("ec", "-in", private, "-pubout", "-out", public)
    return private, public


@pytest.fixture
def signed(built, tmp_path):
    """The signed merge of a chain, with the key that signed it."""
    private, public = keys(tmp_path, "mine")
    sign(built["merge"], private)
    return built["merge"], public


def model_signing(*arguments):
    return subprocess.run([sys.executable, "-m", "model_signing", *map(str, arguments)], capture_output=True, text=True)


def pae(kind, payload):
    """DSSE's pre-authentication encoding, as its specification writes it."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def test_model_signing_accepts_our_bundle(signed):
    """OpenSSF's own command verifies the bundle over the model's bytes, and refuses the model with one bit flipped."""
    path, public = signed
    arguments = ("verify", "key", path, "--signature", signature_path(path), "--public_key", public)
    done = model_signing(*arguments)
    assert done.returncode == 0, done.stderr
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert model_signing(*arguments).returncode != 0


def test_openssl_accepts_our_envelope(signed, tmp_path):
    """The DSSE envelope, taken apart by its specification, verifies with nothing but openssl; its payload is the attestation."""
    path, public = signed
    (line,) = envelope_path(path).read_text().splitlines()
    found = json.loads(line)
    payload = base64.b64decode(found["payload"])
    assert (found["payloadType"], payload) == (PAYLOAD_TYPE, attestation_path(path).read_bytes())
    (tmp_path / "pae").write_bytes(pae(found["payloadType"], payload))
    (tmp_path / "sig").write_bytes(base64.b64decode(found["signatures"][0]["sig"]))
    done = openssl("dgst", "-sha256", "-verify", public, "-signature", tmp_path / "sig", tmp_path / "pae")
    assert "Verified OK" in done.stdout


def test_sigstore_accepts_our_envelope(signed):
    """Sigstore's implementation of DSSE reads the envelope and verifies it; with one character of the payload changed, not."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from sigstore import dsse

    path, public = signed
    key = load_pem_public_key(public.read_bytes())
    text = envelope_path(path).read_text()
    assert dsse._verify(key, dsse.Envelope._from_json(text)) == attestation_path(path).read_bytes()
    found = json.loads(text)
    found["payload"] = base64.b64encode(base64.b64decode(found["payload"]).replace(b"miniature", b"miniaturf")).decode()
    with pytest.raises(Exception, match="invalid signature"):
        dsse._verify(key, dsse.Envelope._from_json(json.dumps(found)))


def rewrite(path, change):
    found = json.loads(envelope_path(path).read_text())
    statement = base64.b64decode(found["payload"])
    envelope_path(path).write_text(json.dumps(found | {"payload": base64.b64encode(change(statement)).decode()}))


def test_what_was_signed_is_checked(signed, tmp_path):
    """By its key: named. With a tampered payload, a re-encoded statement, a foreign key, another model: refused, and why."""
    path, public = signed
    assert check(path, Trust(key=public)).startswith("the key mine.pub (")
    kept = envelope_path(path).read_bytes()
    for change in (lambda text: text.replace(b"0.50", b"0.51"), lambda text: json.dumps(json.loads(text)).encode()):
        rewrite(path, change)
        with pytest.raises(InputError, match=r"is not signed by the key mine.pub .*, or was changed since"):
            check(path, Trust(key=public))
        envelope_path(path).write_bytes(kept)
    with pytest.raises(InputError, match=r"is no signature of .* by .*other.pub"):
        check(path, Trust(key=keys(tmp_path, "other")[1]))
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match="Signature mismatch"):
        check(path, Trust(key=public))


def test_an_envelope_of_another_attestation_is_refused(signed, built, tmp_path):
    """A sound envelope, by the right key, of what the artifact was before or of another artifact does not count."""
    path, public = signed
    sign(built["result"], tmp_path / "mine.pem")
    shutil.copyfile(envelope_path(built["result"]), envelope_path(path))
    with pytest.raises(InputError, match="is of another attestation than"):
        check(path, Trust(key=public))


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1"])
def test_larger_curves_serve(built, tmp_path, curve):
    """Keys on P-384 and P-521 sign both forms as well."""
    private, public = keys(tmp_path, "large", curve)
    sign(built["result"], private)
    assert check(built["result"], Trust(key=public))


def certificates(folder):
    """A root, one between, and a key with a certificate below that: (private key, certificate, between, root)."""
    pairs = {name: (keys(folder, name)[0], folder / f"{name}.crt") for name in ("root", "between", "leaf")}
    openssl(
        "req", "-x509", "-new", "-key", pairs["root"][0], "-subj", "/CN=Somebody's root", "-days", 2, "-out", pairs["root"][1]
    )
    ends = "keyUsage=digitalSignature\nextendedKeyUsage=codeSigning\n"
    for above, name, subject, usage in (
        ("root", "between", "Their CA", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n"),
        ("between", "leaf", "Trainer", ends),
    ):
        request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
        extensions.write_text(usage)
        openssl("req", "-new", "-key", pairs[name][0], "-subj", f"/CN={subject}", "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", pairs[above][1], "-CAkey", pairs[above][0], "-CAcreateserial", "-days", 2,
                "-extfile", extensions, "-out", pairs[name][1])  # fmt: skip
    return *pairs["leaf"], pairs["between"][1], pairs["root"][1]


def test_a_certificate_signs_too(built, tmp_path):
    """Signed with a certificate, both forms verify below its root, here and by OpenSSF's command; below another root neither."""
    key, leaf, between, root = certificates(tmp_path)
    path = built["result"]
    sign(path, key, certificate=leaf, chain=(between,))
    assert check(path, Trust(certificates=(root,))) == "CN=Trainer"
    with pytest.raises(InputError, match="was signed with a certificate: check it with --certificates"):
        check(path, Trust(key=keys(tmp_path, "bare")[1]))
    done = model_signing("verify", "certificate", path, "--signature", signature_path(path), "--certificate_chain", root)
    assert done.returncode == 0, done.stderr
    (tmp_path / "else").mkdir()
    with pytest.raises(InputError, match="is no signature of"):
        check(path, Trust(certificates=(certificates(tmp_path / "else")[3],)))


def test_no_host_is_asked(built, tmp_path, monkeypatch):
    """Neither signing nor checking opens a connection, with a bare key and with certificates."""

    def refused(*address):
        raise AssertionError(f"a connection was opened: {address}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    path, (private, public) = built["result"], keys(tmp_path, "mine")
    sign(path, private)
    assert "mine.pub" in check(path, Trust(key=public))
    key, leaf, between, root = certificates(tmp_path)
    sign(path, key, certificate=leaf, chain=(between,))
    assert check(path, Trust(certificates=(root,))) == "CN=Trainer"


def test_keys_that_do_not_serve(built, tmp_path):
    """An RSA key, a curve that the standard leaves out, a file that is no key: each refused, with the command that makes one."""
    openssl("genrsa", "-out", tmp_path / "rsa.pem", 2048)
    openssl("ecparam", "-name", "secp256k1", "-genkey", "-noout", "-out", tmp_path / "k1.pem")
    (tmp_path / "no.pem").write_text("nothing")
    for name, found in (("rsa", "found _?RSAPrivateKey"), ("k1", "found secp256k1"), ("no", "gives no private key")):
        with pytest.raises(InputError, match=rf"{name}\.pem.*{found}.*openssl ecparam"):
            sign(built["result"], tmp_path / f"{name}.pem")
    assert not signature_path(built["result"]).exists()


def test_what_is_damaged_is_not_signed(built, tmp_path):
    """A file that is not the one of its attestation gets no signature."""
    built["result"].write_bytes(built["result"].read_bytes() + b" ")
    write_sidecar(built["result"])
    with pytest.raises(InputError, match="is not the file that its attestation names"):
        sign(built["result"], keys(tmp_path, "mine")[0])


def test_the_command(built, tmp_path, monkeypatch):
    """`sign` asks for an encrypted key's password and names what it leaves; `verify --key` says who signed, or fails."""
    monkeypatch.chdir(tmp_path)  # the checkout may remember a ledger of its own
    private, public = keys(tmp_path, "mine")
    locked = tmp_path / "locked.pem"
    openssl("pkcs8", "-topk8", "-in", private, "-passout", "pass:word", "-out", locked)
    path = str(built["result"])

    def run(*arguments, **options):
        return CliRunner().invoke(cli, [*arguments], **options)

    unsigned = json.loads(run("verify", path, "--key", str(public), "--json").output)
    assert any("is not signed" in problem for problem in unsigned["problems"])
    done = run("sign", path, "--key", str(locked), input="word\n")
    assert (done.exit_code, done.output.count("signed: ")) == (0, 2)
    assert "signed by the key mine.pub" in run("--config", str(SMALL), "verify", path, "--key", str(public)).output
    assert run("verify", path, "--key", str(public), "--certificates", str(public)).exit_code == 2
    for no_key in (private, Path(__file__)):
        said = json.loads(run("verify", path, "--key", str(no_key), "--json").output)["problems"]
        assert any("gives no public key in PEM form" in problem for problem in said)
    said = json.loads(run("verify", path, "--certificates", str(public), "--json").output)["problems"]
    assert any("was signed with a bare key: check it with --key" in problem for problem in said)
    refused = run("verify", path, "--key", str(keys(tmp_path, "other")[1]), "--json")
    assert refused.exit_code == 1
    assert any("is no signature of" in problem for problem in json.loads(refused.output)["problems"])


def test_without_the_libraries_it_says_how_to_get_them(built, tmp_path, monkeypatch):
    """Where the extra is not installed, `sign` says what to install, and everything else works."""
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(PlacementError, match="make evidence"):
        sign(built["result"], tmp_path / "any.pem")
