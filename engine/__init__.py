"""The Limbeck engine: everything that distils, selects, trains and measures.

Torch-free modules (the pages may import these): ``engine.errors``, ``engine.spec``, ``engine.presets``,
``engine.home``, ``engine.data.catalogue``, ``engine.runs.store``, ``engine.runs.executor``.
"""
