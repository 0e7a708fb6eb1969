"""Figures of an iteration and its failure signatures. Pure functions."""
