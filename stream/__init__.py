"""Flink jobs, the replay generator and the replayer: everything that moves events through the stream."""
