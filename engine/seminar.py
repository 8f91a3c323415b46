"""Seminar mode: the presenter's key, what proves that a browser has it, and how such a server is started (torch-free).

A server is in seminar mode while ``LIMBECK_PRESENTER_KEY`` is in its environment. Whoever opens a page with ``?key=``
and that key is the presenter from then on; everybody else is a viewer. The key goes over the network as the connection
does: over plain http, somebody who listens in can read it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import sys
import time
from pathlib import Path
from urllib.parse import quote

from engine.errors import Refused
from engine.home import limbeck_home

VARIABLE = "LIMBECK_PRESENTER_KEY"
FILE = "presenter.key"
LEAST = 10  # characters of a key: guessed at some hundreds a second, eleven small letters last for millennia
LIFE = 12 * 3600  # seconds for which a browser stays the presenter's: a day of teaching
EVERYWHERE = ("0.0.0.0", "::", "")
ROOT = Path(__file__).resolve().parents[1]


def presenter_key() -> str:
    """The presenter's key of this server; empty where it is in no seminar mode."""
    return os.environ.get(VARIABLE, "").strip()


def kept_key(home: Path) -> str:
    """The key that was made at the first start; made now, for the owner's eyes alone, where there is none."""
    path = home / FILE
    if not path.exists():
        aside = home / f".{FILE}.{secrets.token_hex(4)}"
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        os.replace(aside, path)
    try:
        path.chmod(0o600)
        return checked_key(path.read_text(encoding="utf-8").strip(), f"the one in {path}")
    except (OSError, UnicodeDecodeError):
        raise Refused(f"{path} cannot be read; delete it, and a new key is made.") from None


def checked_key(key: str, which: str) -> str:
    """The key; ``Refused`` for one that is too easy to guess, or that no address can hold."""
    if len(key) < LEAST or len(key) > 200 or not key.isprintable() or " " in key:
        raise Refused(
            f"The presenter's key ({which}) must have {LEAST} to 200 characters and no spaces; give a longer one, or "
            "none, and one is made."
        )
    return key


# ---- what a browser shows instead of the key ------------------------------------------------------------------------


def _sign(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def cookie_name(key: str) -> str:
    """The cookie of this key's server: cookies know no ports, and there may be two servers on one machine."""
    return f"limbeck_presenter_{_sign(key, 'name')[:8]}"


def right_key(key: str, given: str) -> bool:
    """Whether a key is the presenter's, in a time that does not tell how much of it is right."""
    return bool(key) and hmac.compare_digest(key.encode(), given.encode("utf-8", "replace"))


def make_token(key: str, now: float | None = None) -> str:
    """What the presenter's browser keeps: until when it counts, and a signature made with the key."""
    until = str(int((time.time() if now is None else now) + LIFE))
    return f"{until}.{_sign(key, f'presenter {until}')}"


def right_token(key: str, token: str, now: float | None = None) -> bool:
    """Whether ``make_token`` made this with the key, and not too long ago."""
    until, _, signature = token.partition(".")
    if not key or not (until.isascii() and until.isdecimal()) or len(until) > 12:
        return False
    genuine = hmac.compare_digest(_sign(key, f"presenter {until}").encode(), signature.encode("utf-8", "replace"))
    return genuine and int(until) > (time.time() if now is None else now)


# ---- starting -------------------------------------------------------------------------------------------------------


def room_host(address: str) -> str:
    """The name under which a server that listens at ``address`` is found by the others in the room."""
    if address not in EVERYWHERE:
        return f"[{address}]" if ":" in address else address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: this only asks which of our addresses would send it
            return probe.getsockname()[0]
        except OSError:
            return "localhost"


def prepare(address: str, port: int, key: str | None) -> tuple[list[str], dict[str, str], list[str]]:
    """The command that serves, its environment, and what to tell the presenter; ``Refused`` where that cannot work."""
    home = limbeck_home()
    given = key or os.environ.get(VARIABLE, "").strip()
    key = checked_key(given, "--key" if key else VARIABLE) if given else kept_key(home)
    if not 1 <= port <= 65535:
        raise Refused(f"--port was {port}, but must be from 1 to 65535.")
    try:
        family = socket.getaddrinfo(address or "0.0.0.0", port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "that is no address"
        raise Refused(
            f"Nothing can listen at {address[:80]}, port {port} ({reason}); choose another --port or --address."
        ) from None
    command = [
        sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), f"--server.address={address}",
        f"--server.port={port}", "--server.headless=true",
    ]  # fmt: skip
    environment = {**os.environ, "LIMBECK_HOME": str(home), VARIABLE: key}
    if data := os.environ.get("LIMBECK_DATA"):  # the server works in another folder
        environment["LIMBECK_DATA"] = str(Path(data).expanduser().resolve())
    room = f"http://{room_host(address)}:{port}"
    me = f"http://localhost:{port}" if address in (*EVERYWHERE, "127.0.0.1", "localhost") else room
    told = [
        f"Presenter: {me}/?key={quote(key, safe='')}   (keep this link to yourself)",
        f"Viewers:   {room}",
    ]
    if address not in EVERYWHERE and address in ("127.0.0.1", "localhost", "::1"):
        told.append("Only this machine can open these; start with --address 0.0.0.0 to let the room in.")
    return command, environment, told


def serve(address: str, port: int, key: str | None) -> None:
    """Become a server in seminar mode."""
    command, environment, told = prepare(address, port, key)
    print("\n".join(told), flush=True)
    os.chdir(ROOT)  # where the server's settings are
    os.execve(command[0], command, environment)
