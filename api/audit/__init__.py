"""The journal as an outsider verifies it: tree, signed checkpoints, anchors, damage by name, proofs."""
