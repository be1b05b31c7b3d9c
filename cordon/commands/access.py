"""`cordon access`: API keys of the HTTP door."""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, cast, get_args

import typer

from api.access import ROLES, Role
from cordon.failure import Failure
from cordon.settings import Settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="API keys of the HTTP door.")


@app.callback()
def access() -> None:
    """API keys of the HTTP door. See docs/access.md."""


@app.command("new-key")
def new_key(
    name: Annotated[str, typer.Argument(help="Who holds it: names the caller in audit records.")],
    role: Annotated[list[str], typer.Option(help=f"One of {', '.join(get_args(Role))}; may be repeated.")],
    days: Annotated[
        int | None, typer.Option(min=1, max=3_650, help="Valid for so long; for ever if absent.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The settings' tenant if absent.")] = None,
) -> None:
    """Makes a key: the key itself on stderr, once; its entry for `access.keys_file` on stdout."""
    unknown = set(role) - set(ROLES)
    if unknown:
        raise Failure(f"no role {', '.join(sorted(unknown))}; there are {', '.join(ROLES)}")
    key = "cordon_" + secrets.token_urlsafe(32)
    owner = tenant or Settings.load().tenant
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    typer.secho(f"the key, shown this once: {key}", err=True)
    typer.echo(entry(name, key, owner, cast(list[Role], role), expires), nl=False)


def entry(name: str, key: str, tenant: str, roles: list[Role], expires: datetime | None) -> str:
    """A key's table in the file; `expires` has an offset."""
    lines = [
        "[[key]]",
        f"name = {json.dumps(name)}",
        f'sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"',
        f"tenant = {json.dumps(tenant)}",
        f"roles = {json.dumps(roles)}",
    ]
    if expires is not None:
        lines.append(f"expires = {expires.isoformat(timespec='seconds')}")
    return "\n".join(lines) + "\n\n"
