"""The schema's versions: found, and brought to the one that this code uses.

Processes of two versions may run while an installation is upgraded: a migration adds what older code can go
on without, replaces what nobody else reads, or takes away so that older code is refused, not misled.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from api.past.backend import Backend
from api.past.schema import VERSION, VERSION_TABLE

SCRIPTS = Path(__file__).resolve().parent / "migrations"
FIRST = "0001"


def version_of(connection: Connection) -> str | None:
    """The schema's version: `None` for an empty database, the first for a file from before there were any."""
    tables = inspect(connection)
    if tables.has_table(VERSION_TABLE):
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
        if found is not None:
            return str(found)
    return FIRST if tables.has_table("decision") else None


def migrate(backend: Backend) -> tuple[str | None, str]:
    """Bring the schema to this code's version, in one transaction: the version before and now.

    One that is newer is left alone. May take minutes on a large store. Raises what the database raises.
    """
    with backend.engine.connect().execution_options(writes=True) as connection, connection.begin():
        backend.alone(connection)
        before = version_of(connection)
        if before is not None and before >= VERSION:
            return before, before
        _upgrade(connection, unversioned=before == FIRST and not inspect(connection).has_table(VERSION_TABLE))
    return before, VERSION


def _upgrade(connection: Connection, *, unversioned: bool) -> None:
    # Imported where there is something to migrate: it brings a templating engine with it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    if unversioned:
        command.stamp(config, FIRST)
    command.upgrade(config, VERSION)
