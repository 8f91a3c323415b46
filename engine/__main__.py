"""``python -m engine``."""

import os
import sys
import threading

from engine.cli import main

status = main()
sys.stdout.flush()
sys.stderr.flush()
if any(thread.daemon for thread in threading.enumerate()):
    os._exit(status)  # a compiler still at work in the background would hold up the ending, or crash it
sys.exit(status)
