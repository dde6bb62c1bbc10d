"""`veilset data fetch`: MNIST and Fashion-MNIST from their public mirrors, checked against pinned checksums."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from pathlib import Path

from veilset.core.errors import ConfigError, DataError, suggest
from veilset.core.io import write_bytes
from veilset.data import public

MIRRORS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
# SHA-256 of the *decompressed* files in the order of public.FILES: mirrors and Debian compress them differently.
SHA256 = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
LARGEST = 64 << 20  # no file of these sets is larger, packed or unpacked
TIMEOUT = 30.0


def fetch(name: str, out: str | Path | None = None) -> Path:
    """Download a built-in set. Correct files that are there are kept; each appears whole or not at all.

    Args:
        name: mnist or fashion-mnist.
        out: folder to fill; by default the user's cache, where `load` looks for it.

    Returns:
        The folder.

    Raises:
        ConfigError: a name that cannot be fetched.
        DataError: no network, or a file that does not have the pinned checksum.
    """
    if name == "digits":
        raise ConfigError("digits comes with scikit-learn; there is nothing to fetch")
    if name not in MIRRORS:
        raise ConfigError(f"{name!r} cannot be fetched.{suggest(name, MIRRORS)} Known: {', '.join(MIRRORS)}")
    folder = Path(out) if out is not None else public.cache(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise DataError(f"cannot make {folder}: {e.strerror}; choose another folder with --out") from None
    for file, digest in zip(public.FILES, SHA256[name], strict=True):
        target = folder / file
        if target.is_file() and _digest(target.read_bytes()) == digest:
            continue
        data = _download(name, file)
        if _digest(data) != digest:
            raise DataError(
                f"{MIRRORS[name]}{file}: has not the pinned SHA-256 {digest}; try again or {_elsewhere(name)}"
            )
        write_bytes(target, data)
    return folder


def _download(name: str, file: str) -> bytes:
    """The bytes of one file, or DataError saying what to do without a network."""
    from urllib.request import urlopen

    url = MIRRORS[name] + file
    try:
        with urlopen(url, timeout=TIMEOUT) as answer:
            data: bytes = answer.read(LARGEST)
            return data
    except OSError as e:  # URLError, HTTPError and timeouts are OSErrors
        raise DataError(f"cannot download {url} ({getattr(e, 'reason', e)}); {_elsewhere(name)}") from None


def _elsewhere(name: str) -> str:
    """What to do where the mirror is no help."""
    debian = f"install Debian's package {public.DEBIAN[name]}, or " if name in public.DEBIAN else ""
    return f"{debian}set VEILSET_DATA to a folder that has {name}/{public.FILES[0]} and the other three"


def _digest(data: bytes) -> str:
    """SHA-256 of the decompressed bytes; of nothing if they do not decompress."""
    try:
        with gzip.open(io.BytesIO(data)) as f:
            return hashlib.sha256(f.read(LARGEST)).hexdigest()
    except (OSError, EOFError, zlib.error):
        return ""
