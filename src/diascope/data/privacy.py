"""Pseudonyms: keyed hashes that stand for patients and for files, in all that is written.

A plain hash of a patient number is undone by hashing every possible number; with a secret key it
is not. The key is $DIASCOPE_KEY, else 32 random bytes that are drawn once and kept in the user's
config folder, readable by the user alone. The same key gives the same pseudonyms everywhere;
without it nobody can tell whom they stand for, and who holds it can test a guess: keep it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from diascope.errors import UserError

VARIABLE = "DIASCOPE_KEY"
BYTES = 32
LEAST = 16  # characters of a key that is given


def pseudonym(*parts: str, key: bytes | None = None) -> str:
    """Return 16 hexadecimal digits that stand for `parts`, by BLAKE2b with `key`.

    The first part names the kind, such as "group". `key`, of 1 to 64 bytes, is by default the
    user's own (see `secret`). Two of a million values share a pseudonym with a chance of 3 in 10^8.
    """
    digest = hashlib.blake2b(key=secret() if key is None else key, digest_size=8)
    for part in parts:
        content = part.encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def secret() -> bytes:
    """Return the user's key, drawn and kept now where there is none yet.

    Raises `UserError` for a key that is too short, is damaged or is readable by others, and where
    none can be kept.
    """
    given = os.environ.get(VARIABLE)
    return _of_text(given) if given is not None else _kept(key_file())


def key_file() -> Path:
    """Return where the key is kept: $XDG_CONFIG_HOME/diascope/key, else ~/.config/diascope/key."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "diascope" / "key"


def _of_text(text: str) -> bytes:
    if len(text.strip()) < LEAST:
        raise UserError(f"${VARIABLE}: is shorter than {LEAST} characters: give a longer secret")
    return hashlib.blake2b(text.strip().encode(), digest_size=BYTES).digest()


@functools.lru_cache(maxsize=4)
def _kept(file: Path) -> bytes:
    """Return the key in `file`, having made it where there was none."""
    try:
        if not file.exists():
            _draw(file)
        if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise UserError(f"{file}: others may read this key: chmod 600 {file}")
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise UserError(
            f"{file}: the key of the pseudonyms cannot be kept there ({what}): "
            f"give a secret in ${VARIABLE}"
        ) from None
    except ValueError:
        key = b""
    if len(key) != BYTES:
        raise UserError(
            f"{file}: is damaged: restore it, or remove it for a new key and other pseudonyms"
        )
    return key


def _draw(file: Path) -> None:
    """Write a random key to `file`; of several processes at once the first one's stays."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=".key.", dir=file.parent)  # readable by the user alone
    try:
        with os.fdopen(handle, "w", encoding="ascii") as aside:
            aside.write(secrets.token_hex(BYTES) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(name, file)
    finally:
        os.unlink(name)
