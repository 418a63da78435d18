"`realm`, or `python -m realm_nb`: one command for all."

import sys

from .core.config import dispatch
from .core.errors import cli

COMMANDS = {
    "train": ("train:main", "pre-train REALM, and fine-tune it on questions"),
    "app": ("show.app:main", "explore a run in the browser"),
    "ask": ("qa.ask:main", "answer a question from a corpus, with evidence"),
    "evaluate": ("train:evaluate", "measure a finished run again, before and after"),
    "table1": ("qa.table1:main", "question answering next to the paper's table 1"),
    "table2": ("qa.table2:main", "what is lost when one thing of REALM is changed: table 2"),
    "build": ("builder.builder:main", "build versions of a run's index beside its trainer"),
    "tag": ("spans:main", "find salient spans; train and compare taggers"),
    "convert": (
        "hub.released:main",
        "make a released REALM (google/realm-…) one of ours, and back",
    ),
    "fetch": ("text.sources:main", "fetch, list or show text, questions and weights"),
}


@cli
def main(argv):
    "REALM: pre-training a language model that looks things up."
    return dispatch(argv, COMMANDS, "realm", main.__doc__)


if __name__ == "__main__":
    sys.exit(main())
