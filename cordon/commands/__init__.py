"""The commands of `cordon`, one module each."""
