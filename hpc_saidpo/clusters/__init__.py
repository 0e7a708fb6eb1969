"""Clusterer: knowledge points -> embeddings -> the K-Means cluster of each question (method, steps 0.2 and 0.3)."""
