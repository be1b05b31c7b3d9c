"""Webhooks: what happened, told to other systems, signed, at least once. See docs/webhooks.md."""
