"""Batches: many transactions in one request, decided beside the interactive ones and answered by polling."""
