"""What happens before a command's work."""

import gc
import signal
import warnings
from collections.abc import Iterator

import pytest

from dreambooth_cli import stopping
from dreambooth_cli.cli.start import collector_off, loading


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """Restore garbage collection and signals as they were."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    gc.unfreeze()
    with warnings.catch_warnings():
        yield
    gc.enable()
    gc.freeze()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("as_it_was")
def test_the_garbage_collector_rests_while_libraries_are_loaded_and_goes_on_without_them() -> None:
    with pytest.raises(ZeroDivisionError), collector_off():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()
    assert (frozen := gc.get_freeze_count()) > 0
    with collector_off():  # nothing is loaded a second time
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


@pytest.mark.usefixtures("as_it_was")
def test_from_here_on_a_signal_is_a_flag() -> None:
    with loading("nothing"):
        signal.raise_signal(signal.SIGTERM)
        assert stopping.requested()
