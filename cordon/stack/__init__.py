"""The local stack: the real parts (Valkey, Kafka, Flink, our processes) as supervised processes."""
