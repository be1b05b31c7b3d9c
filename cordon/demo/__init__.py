"""The demonstration: a generated world, a model trained on another one, attacks, decisions, reasons."""
