"`python -m realm_nb.ask`: a question in, an answer out (realm_nb/qa/ask.py)."

import sys

from .qa.ask import main

if __name__ == "__main__":
    sys.exit(main())
