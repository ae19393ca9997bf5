"""The order to stop a server, which may come again while it is taken."""

from pathlib import Path
from threading import Event

from serving.draining import DrainingServer


def test_an_order_that_interrupts_another_is_part_of_it(tmp_path: Path) -> None:
    server = DrainingServer(tmp_path / "draining", 0, "serving.worker:create_worker", factory=True)
    orders = []

    class InterruptedEvent(Event):
        """A signal comes while it is set, when its lock is held."""

        def set(self) -> None:
            orders.append(len(orders))
            server.signal_handler_interrupt()
            super().set()

    server.main_loop_interrupt = InterruptedEvent()
    server.signal_handler_interrupt()
    assert server.main_loop_interrupt.is_set()
    assert orders == [0]
