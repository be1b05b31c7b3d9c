"""Drills: real parts are killed under load, and what is left is counted."""
