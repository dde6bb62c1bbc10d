"""Optional Ed25519 signatures over a receipt: who stands behind it; they defeat a rewrite of the whole chain."""

from __future__ import annotations

from pathlib import Path

from veilset.core.errors import ConfigError, RunError
from veilset.core.io import read_json, sha256, write_bytes, write_json


def new_key(path: str | Path) -> str:
    """Write a new private key (PEM, mode 0600) and its public half at PATH.pub; returns the fingerprint.

    Raises:
        RunError: the file exists.
    """
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = Path(path)
    if path.exists():
        raise RunError(f"{path} exists; a key is never overwritten")
    key = Ed25519PrivateKey.generate()
    write_bytes(path, key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()), mode=0o600)
    public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    write_bytes(path.with_name(path.name + ".pub"), public)
    return _fingerprint(key.public_key().public_bytes_raw())


def _fingerprint(raw: bytes) -> str:
    return "ed25519:" + sha256(raw)[:32]


def sign(receipt: Path, key_file: str | Path, signature: Path) -> str:
    """Sign the bytes of a receipt file; returns the key's fingerprint.

    Raises:
        ConfigError: the key file is not an Ed25519 private key in PEM.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(Path(key_file).read_bytes(), None)
    except (ValueError, TypeError, OSError) as e:
        raise ConfigError(
            f"key = {key_file}: not a readable private key ({e}); make one with `veilset sign --new-key`"
        ) from e
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"key = {key_file}: must be an Ed25519 key; make one with `veilset sign --new-key`")
    public = key.public_key().public_bytes_raw()
    write_json(signature, {"public_key": public.hex(), "signature": key.sign(receipt.read_bytes()).hex()})
    return _fingerprint(public)


def check_signature(receipt: Path, signature: Path, public_key: str | Path | None) -> str:
    """Check a signature; returns the fingerprint of the key that made it.

    Args:
        public_key: PEM file of the expected signer; None accepts any key, so compare the fingerprint yourself.

    Raises:
        RunError: unsigned, wrong signer, or the receipt was changed.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if not signature.exists():
        raise RunError("there is no signature; ask the owner to run `veilset sign`")
    said = read_json(signature)
    raw = bytes.fromhex(said["public_key"])
    if public_key is not None:
        expected = load_pem_public_key(Path(public_key).read_bytes())
        if not isinstance(expected, Ed25519PublicKey) or expected.public_bytes_raw() != raw:
            raise RunError(f"signed by {_fingerprint(raw)}, not by the key you gave")
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(said["signature"]), receipt.read_bytes())
    except InvalidSignature:
        raise RunError("the signature does not fit the receipt; it was changed after signing") from None
    return _fingerprint(raw)
