"""Verdicts on responses: from text in place where that is enough, else in processes that may be killed."""
