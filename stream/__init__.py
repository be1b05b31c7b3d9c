"""Flink jobs, the payments world and the replay of histories. Imports `features` only."""
