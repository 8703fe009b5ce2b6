"""Benchmarks: each file begins with the question it answers."""
