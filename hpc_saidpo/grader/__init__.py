"""Verdicts on responses: in place if text is enough, else in processes that may be killed."""
