"""Signs an artifact with its owner's key and checks such signatures, in the two forms that other people's programs read.

    sign(Path("results/my-first.safetensors"), Path("key.pem"))
    check(Path("results/my-first.safetensors"), Trust(key=Path("key.pub")))

- `X.sig` is a bundle of OpenSSF's Model Signing over the bytes of X: `model_signing verify key X --signature X.sig ...`.
- `X.intoto.jsonl` is X's attestation in a DSSE envelope, one a line: any DSSE verifier reads it. The attestation pins X and
  everything that it comes from.

One key makes both: a PEM file with an elliptic-curve key (P-256, P-384 or P-521), alone or with a certificate. Nothing here
needs a signature, and nothing contacts a host: keyless signing is `model_signing`'s own command line.
"""

import base64
import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.files import write_text
from astolfo.provenance.attestation import attestation_path, read
from astolfo.provenance.extra import needed

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem && openssl ec -in key.pem -pubout -out key.pub"


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whose signature counts: the owner of a public `key` (PEM), or whoever has a certificate below one of `certificates`."""

    key: Path | None = None
    certificates: tuple[Path, ...] = ()


def signature_path(path: Path) -> Path:
    """Where the model's signature of the artifact `path` lies."""
    return path.with_name(path.name + ".sig")


def envelope_path(path: Path) -> Path:
    """Where the signed attestation of the artifact `path` lies."""
    return path.with_name(path.name + ".intoto.jsonl")


def sign(
    path: Path, key: Path, *, password: bytes | None = None, certificate: Path | None = None, chain: tuple[Path, ...] = ()
) -> tuple[Path, Path]:
    """Signs the artifact `path` and its attestation with the private `key`; returns the two files.

    With `certificate`, the key's own, the signature carries it and the certificates of `chain` above it. Raises InputError when
    there is no sound attestation, or it is of another file, or the key or the certificate does not serve; PlacementError
    without the libraries.
    """
    with needed("Signing"):
        from model_signing import signing
        from securesystemslib.dsse import Envelope
        from securesystemslib.signer import CryptoSigner
    _same_file(path)
    private = _private(key, password)
    signed = Envelope(attestation_path(path).read_bytes(), PAYLOAD_TYPE, {})
    signed.sign(CryptoSigner(private))
    config = signing.Config()
    if certificate is None:
        config.use_elliptic_key_signer(private_key=key, password=password)  # type: ignore[arg-type]  # it hands bytes on
    else:
        _unencrypted(key, password)
        with _refusing(f"{certificate} does not serve to sign with {key}"):
            above = chain or (certificate,)  # the library reads no empty chain; a certificate that is there twice changes nothing
            config.use_certificate_signer(private_key=key, signing_certificate=certificate, certificate_chain=above)
    beside = signature_path(path).with_name(f".{signature_path(path).name}.part")
    config.sign(path.resolve(), beside)
    beside.replace(signature_path(path))
    write_text(envelope_path(path), json.dumps(signed.to_dict(), sort_keys=True) + "\n")
    return signature_path(path), envelope_path(path)


def check(path: Path, trust: Trust) -> str:
    """Who of those that `trust` names signed the artifact `path` and its attestation, as both lie there now.

    Raises InputError when nobody of them did, or when either changed since; PlacementError without the libraries.
    """
    with needed("Checking a signature"):
        from model_signing import verifying
        from securesystemslib.dsse import Envelope
        from securesystemslib.exceptions import VerificationError
    for file in (signature_path(path), envelope_path(path)):
        if not file.exists():
            raise InputError(
                f"{path} is not signed: expected {file}. `astolfo sign {path} --key KEY` signs it, if it is yours; if not, ask "
                "its author for that file."
            )
    key = None if trust.key is None else _public(trust.key)
    _check_form(path, trust)
    config = verifying.Config()
    with _refusing(f"{signature_path(path)} is no signature of {path} by {_names(trust)}"):
        if trust.key is not None:
            config.use_elliptic_key_verifier(public_key=trust.key)
        else:
            config.use_certificate_verifier(certificate_chain=trust.certificates)
        config.verify(path.resolve(), signature_path(path))
        who, key = _signer(path, trust, key)
    with _refusing(f"{envelope_path(path)} is no DSSE envelope"):
        (line,) = envelope_path(path).read_text(encoding="utf-8").splitlines()
        found = Envelope.from_dict(json.loads(line))
    try:
        found.verify([key], 1)
    except VerificationError:
        raise InputError(f"{envelope_path(path)} is not signed by {who}, or was changed since: sign it again.") from None
    if found.payload_type != PAYLOAD_TYPE or found.payload != attestation_path(path).read_bytes():
        raise InputError(f"{envelope_path(path)} is of another attestation than {attestation_path(path)}: sign it again.")
    return who


def _same_file(path: Path) -> None:
    """Refuses to sign what its attestation does not speak of."""
    from astolfo.files import sha256_of

    attested = next(iter(read(path).subjects.values()))
    if (found := sha256_of(path)) != attested:
        raise InputError(f"{path} is not the file that its attestation names: expected sha256 {attested}, found {found}.")


def _private(key: Path, password: bytes | None) -> Any:
    """The private key of a PEM file, of a kind that both forms take."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        found = serialization.load_pem_private_key(key.read_bytes(), password)
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{key} gives no private key in PEM form ({error}). One is made with: {_MAKE}") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name not in _CURVES:
        kind = found.curve.name if isinstance(found, ec.EllipticCurvePrivateKey) else type(found).__name__
        raise InputError(
            f"{key}: expected an elliptic-curve key on P-256, P-384 or P-521, found {kind}. One is made with: {_MAKE}"
        )
    return found


def _unencrypted(key: Path, password: bytes | None) -> None:
    if password is not None:
        raise InputError(f"{key} is encrypted, and model-signing takes no encrypted key together with a certificate. Decrypt it.")


def encrypted(key: Path) -> bool:
    """Whether a PEM file holds a private key that needs a password."""
    return key.is_file() and b"ENCRYPTED" in key.read_bytes()


def _signer(path: Path, trust: Trust, key: Any) -> tuple[str, Any]:
    """Who signed, and their public key: the trusted `key`, or that of the certificate in the (already verified) bundle."""
    from cryptography import x509
    from securesystemslib.signer import SSlibKey

    if trust.key is not None:
        found = SSlibKey.from_crypto(key)
        return f"the key {trust.key.name} ({found.keyid[:12]})", found
    bundle = json.loads(signature_path(path).read_text(encoding="utf-8"))
    first = bundle["verificationMaterial"]["x509CertificateChain"]["certificates"][0]["rawBytes"]
    certificate = x509.load_der_x509_certificate(base64.b64decode(first))
    return certificate.subject.rfc4514_string(), SSlibKey.from_crypto(certificate.public_key())


def _public(key: Path) -> Any:
    """The public key of a PEM file."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(key.read_bytes())
    except (ValueError, OSError) as error:
        raise InputError(
            f"{key} gives no public key in PEM form ({error}). The owner of a private key makes one with: "
            "openssl ec -in key.pem -pubout -out key.pub"
        ) from None


def _check_form(path: Path, trust: Trust) -> None:
    """Refuses a bare key for what a certificate signed, and the other way round; anything else is the library's to refuse."""
    try:
        material = json.loads(signature_path(path).read_text(encoding="utf-8"))["verificationMaterial"]
        by_certificate = "x509CertificateChain" in material
    except (ValueError, LookupError, TypeError):
        return
    if by_certificate and trust.key is not None:
        raise InputError(f"{path} was signed with a certificate: check it with --certificates ROOT instead of --key.")
    if not by_certificate and trust.certificates:
        raise InputError(f"{path} was signed with a bare key: check it with --key KEY instead of --certificates.")


def _names(trust: Trust) -> str:
    return str(trust.key) if trust.key else f"a certificate below {', '.join(map(str, trust.certificates))}"


@contextlib.contextmanager
def _refusing(what: str) -> Any:
    """Whatever a library finds wrong within, as InputError; what it prints is kept from the terminal."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except InputError:
        raise
    except Exception as error:  # the libraries raise kinds of their own, and ValueError, KeyError, TypeError ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{what}: {reason}") from None
