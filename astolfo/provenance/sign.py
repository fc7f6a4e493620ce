"""Signing an attestation with a key that its owner names, and checking such a signature: OpenSSH's `ssh-keygen -Y`.

The signature `X.attestation.json.sig` covers the attestation, which pins the artifact and everything it comes from. Nothing
here needs one. Who may sign is a file in OpenSSH's ALLOWED SIGNERS format: "me@example.org ssh-ed25519 AAAA...".
"""

import subprocess
from pathlib import Path

from astolfo.errors import InputError, PlacementError
from astolfo.provenance.attestation import attestation, read

NAMESPACE = "astolfo"  # a signature made for something else does not count here


def signature(path: Path) -> Path:
    """Where the signature of the artifact `path` lies."""
    file = attestation(path)
    return file.with_name(file.name + ".sig")


def sign(path: Path, key: Path) -> Path:
    """Signs the attestation of `path` with the private (or agent-held public) SSH `key`; returns the signature's path.

    Raises InputError when there is no sound attestation, or ssh-keygen refuses.
    """
    read(path)
    target = signature(path)
    target.unlink(missing_ok=True)
    done = _ssh_keygen("sign", "-f", str(key), "-n", NAMESPACE, str(attestation(path)))
    if done.returncode:
        raise InputError(f"{attestation(path)} was not signed: ssh-keygen says {_said(done)!r}. Is {key} an SSH key?")
    return target


def check(path: Path, allowed: Path) -> str:
    """Who of the `allowed` signers signed the attestation of `path`. Raises InputError when none did, or it changed since."""
    file, text = signature(path), attestation(path).read_bytes()
    if not file.exists():
        raise InputError(f"{path} is not signed: expected {file}. `astolfo sign {path} --key KEY` signs it.")
    found = _ssh_keygen("find-principals", "-s", str(file), "-f", str(allowed))
    names = found.stdout.decode().split()
    if found.returncode or not names:
        raise InputError(f"{file} is by none of the signers in {allowed}: ssh-keygen says {_said(found)!r}.")
    done = _ssh_keygen("verify", "-f", str(allowed), "-I", names[0], "-n", NAMESPACE, "-s", str(file), text=text)
    if done.returncode:
        raise InputError(f"{file} does not fit its attestation: ssh-keygen says {_said(done)!r}.")
    return names[0]


def _ssh_keygen(verb: str, *arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["ssh-keygen", "-Y", verb, *arguments], input=text, capture_output=True)
    except FileNotFoundError:
        raise PlacementError("ssh-keygen is not installed: signing needs OpenSSH 8.2 or newer.") from None


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return (
        (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-1:][0] if done.stderr or done.stdout else ""
    )
