"""Loss curves: what is read of states, how it is thinned and drawn."""

import numpy as np
import pytest
from PIL import Image

from astolfo.errors import InputError, StateError
from astolfo.site.losses import Curve, read, smooth, thin
from astolfo.site.plots import era_plot
from tests.site.conftest import RUN, write_state


def test_the_last_state_has_the_whole_curve(tmp_path):
    """A state holds every loss since its run began: the last one is enough, wherever a run began in the data order."""
    write_state(tmp_path, RUN, 12, [0.5, 0.25])
    write_state(tmp_path, RUN, 13, [0.5, 0.25, 0.125])
    assert read(tmp_path, RUN) == Curve(first=10, every=1, values=(0.5, 0.25, 0.125))


def test_a_restart_joins_its_stretches(tmp_path):
    """After a restart from its own checkpoint a run's losses begin anew; the curve has both stretches."""
    write_state(tmp_path, RUN, 2, [0.5, 0.25])
    write_state(tmp_path, RUN, 3, [0.125])
    write_state(tmp_path, RUN, 4, [0.125, 0.0625])
    assert read(tmp_path, RUN) == Curve(first=0, every=1, values=(0.5, 0.25, 0.125, 0.0625))


def test_a_run_without_states_has_no_curve(tmp_path):
    """Nothing there is nothing, and what an interrupted job left is no state."""
    write_state(tmp_path, RUN, 3, [0.5])
    (tmp_path / "states" / RUN / "00000003.safetensors").rename(tmp_path / "states" / RUN / ".00000003-ab.safetensors")
    assert read(tmp_path, RUN) is None


def test_a_loss_that_is_not_finite_is_refused(tmp_path):
    """No run saves one, so the state is damaged, and named."""
    write_state(tmp_path, RUN, 2, [0.5, float("nan")])
    with pytest.raises(StateError, match="00000002.safetensors has a loss that is not finite"):
        read(tmp_path, RUN)


def test_thinning_keeps_means_and_steps():
    """Equal stretches become their means; the last one is of what is left."""
    curve = Curve(first=100, every=1, values=tuple(map(float, range(10))))
    assert thin(curve, 4) == Curve(first=100, every=3, values=(1.0, 4.0, 7.0, 9.0))
    assert thin(curve, 10) == curve


def test_smoothing_has_no_bias_at_the_start():
    """A constant stays itself from the first value on."""
    assert np.allclose(smooth((0.3,) * 50), 0.3)


def test_an_eras_plot_is_the_same_file_twice(ledger, outputs, tmp_path):
    """One PNG per era, the same bytes each time."""
    for name in ("a.png", "b.png"):
        era_plot(ledger, outputs, "2601", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.size, picture.info.keys() - {"dpi"}) == ((1320, 624), set())


@pytest.mark.parametrize(
    ("era", "message"), [("2512", "Unknown era '2512': expected one of 2412"), ("2412", "No run of era 2412")]
)
def test_an_era_without_losses_is_explained(ledger, outputs, tmp_path, era, message):
    """An unknown era, and one of which nothing is built, each have a message."""
    with pytest.raises(InputError, match=message):
        era_plot(ledger, outputs, era, tmp_path / "x.png")
