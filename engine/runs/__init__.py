"""Runs: the store that remembers them, the worker that does them, the executor that keeps a worker warm.

``store``, ``executor``, ``process`` and ``validate`` are torch-free.
"""
