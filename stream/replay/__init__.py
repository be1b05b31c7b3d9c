"""Replay of histories: any Parquet file with a schema, in event-time order, into either door."""
