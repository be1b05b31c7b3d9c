"""Rules that an analyst can read: parsed, type-checked against the catalogue, compiled once."""
