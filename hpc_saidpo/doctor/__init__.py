"""Preflight checks: what a job with this configuration would meet on these nodes. Every check is collective."""
