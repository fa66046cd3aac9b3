"""Environments on Kubernetes: the primitives over the official client, which is imported when the first request is made."""
