"""`python -m api.webhooks`: reads the log, delivers to the subscriptions. Cheap where there are none."""

import asyncio
import logging
import random
import signal
import sys
import threading
import time

from api.config import InvalidConfiguration, here
from api.metrics import Metrics
from api.webhooks.box import Box
from api.webhooks.dispatcher import Dispatcher, Policy
from api.webhooks.reader import Reader
from api.webhooks.target import resolve

LOG = logging.getLogger("cordon.webhooks")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> int:
    """Run until told to stop; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = here()
    except InvalidConfiguration as error:
        LOG.error("%s", error)
        return 2
    metrics = Metrics()
    metrics.serve(config.host, config.metrics_port)
    policy = Policy(inside=config.webhooks.inside, retries=config.webhooks.retries)
    dispatcher = Dispatcher(
        Box(config.webhooks.file), policy, metrics, _now_ms, random.SystemRandom().random, resolve
    )
    reader = Reader(config, Box(config.webhooks.file), _now_ms, time.sleep)
    thread = threading.Thread(target=reader.run, name="reader", daemon=True)

    def stop(*_: object) -> None:
        dispatcher.stopping = reader.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    thread.start()
    asyncio.run(_run(dispatcher, reader))
    reader.stopping = True
    thread.join(15)
    if reader.failure is not None:
        LOG.error("stopped: %s", reader.failure)
        return 1
    return 0


async def _run(dispatcher: Dispatcher, reader: Reader) -> None:
    work = asyncio.create_task(dispatcher.run())
    while not work.done():
        if reader.failure is not None:
            dispatcher.stopping = True
        await asyncio.wait([work], timeout=0.2)
    await work


if __name__ == "__main__":
    sys.exit(main())
