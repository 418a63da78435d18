"Figures of a run that go to a tracker as well."

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from realm_nb.core.errors import UserError
from realm_nb.core.folder import Metrics


def test_a_tracker_gets_every_line_and_goes_on_where_it_stopped(tmp_path):
    for begin in (0, 2):
        metrics = Metrics(tmp_path / "metrics.jsonl")
        metrics.track("tensorboard", {"seed": 0, "corpus.source": "mini"})
        for step in range(begin, begin + 2):
            metrics.add("warmup", step + 1, {"loss": 2.0 / (step + 1)})
        metrics.tracker.finish()
    events = EventAccumulator(str(tmp_path / "realm_nb")).Reload()
    lines = events.Scalars("warmup/loss")
    assert [(line.step, round(line.value, 3)) for line in lines] == [
        (1, 2.0),
        (2, 1.0),
        (3, 0.667),
        (4, 0.5),
    ]
    assert len(metrics.all()) == 4


def test_a_tracker_that_is_not_there_is_one_line(tmp_path):
    for name, why in (("tensorbord", "did you mean tensorboard"), ("comet_ml", "pip install")):
        with pytest.raises(UserError, match=why):
            Metrics(tmp_path / "metrics.jsonl").track(name, {})
