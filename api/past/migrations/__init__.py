"""How the schema of the query store came to be; `api.past.migrate` runs it."""
