"""Tagger: the knowledge points of each question, from the pool or by a language model (method, step 0.1)."""
