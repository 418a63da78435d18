"""REALM, retrieval-augmented language-model pre-training, as notebooks you read and a library.

What a user needs is here, and is loaded when it is first asked for:

>>> import realm_nb
>>> run = realm_nb.Explorer()  # the small encyclopedia; Explorer("runs/quick") opens a run
>>> sentence = "Marie Curie was born in [MASK] in 1867."
>>> filled = realm_nb.fill(run, sentence, "Warsaw")
>>> round(sum(z["p_z"] for z in filled["documents"]), 3)  # p(z|x), ∅ among the documents
1.0
>>> found = realm_nb.look_up(run, "Who discovered radium?")
>>> len(found["documents"])  # four and ∅
5

| name | is |
|---|---|
| `recipe`, `Config`, `run_stages` | the settings of a run, and its training |
| `load`, `Workspace` | a run, opened: its corpus, its towers at any stage, its index |
| `Explorer`, `fill`, `look_up` | fill a blank; search |
| `Answerer` | answer a question, for a run that was fine-tuned |
| `Realm`, `realm_step`, `realm_loss` | the towers over a corpus, one step, the marginal |
| `UserError` | what a user can put right |
"""

import os
from importlib import import_module

# Nobody is told what is read or trained here, unless the user has said so.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

__version__ = "0.1.0"

_HOMES = {
    "Answerer": "qa.ask",
    "Config": "workspace",
    "Explorer": "show.explorer",
    "Realm": "pretrain",
    "UserError": "core.errors",
    "Workspace": "workspace",
    "fill": "show.explorer",
    "load": "workspace",
    "look_up": "show.explorer",
    "realm_loss": "marginal",
    "realm_step": "pretrain",
    "recipe": "workspace",
    "run_stages": "train",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    "Load what is asked for from the module that has it."
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    "The names above."
    return [*globals(), *_HOMES]
