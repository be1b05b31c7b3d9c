"""The query store on SQLite and PostgreSQL: tables, migrations, projection, search."""
