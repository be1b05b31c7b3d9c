"""From a decoded event to what is asked of the store, stage by stage: in Python, and compiled."""
