"""The decision engine and its two doors (HTTP and Kafka), the journal, publisher and projector."""
