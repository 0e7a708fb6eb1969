"""Trainer: preference pairs -> losses -> one DPO round over the ranks (method, steps 6 and 7)."""
