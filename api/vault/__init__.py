"""Keys of personal data: one per data subject, destroyed by an erasure (docs/erasure.md)."""
