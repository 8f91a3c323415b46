"""The Limbeck engine: everything that distils, selects, trains and measures.

Torch-free modules (the pages may import these): ``engine.errors``, ``engine.spec``, ``engine.presets``,
``engine.home``, ``engine.words``, ``engine.exports``, ``engine.data.catalogue``, ``engine.data.folder_check``,
``engine.runs.store``, ``engine.runs.validate`` and ``engine.runs.executor``.
"""

import os

# Must be set before torch loads OpenMP. Waiting threads then sleep instead of spinning: on a laptop whose cores are
# shared with a browser, training students was measured two to three times faster so.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
