"`python -m realm_nb.app`: the explorer in the browser (realm_nb/show/app.py)."

import sys

from .show.app import main

if __name__ == "__main__":
    sys.exit(main())
