"""The verbs of the command line: python -m scripts.<verb> --config_path configs/<row>.yaml."""

import signal
import sys

# `python -m` is about to run a verb (only then is this the first argument): until run_verb takes
# over, Ctrl-C ends it at once and without the traceback of whatever is being imported.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
