"""Runs the migrations on the connection that `api.past.migrate` holds, in its transaction."""

from alembic import context

from api.past.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
