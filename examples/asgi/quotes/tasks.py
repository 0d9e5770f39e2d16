import asyncio
import random

from pgq.tasks import task


# One worker runs up to PGQ["coroutines"] of these beside each other: each of them only waits.
@task(timeout=10)
async def ask(carrier: str, weight: int) -> float:
    """Ask a carrier for its price; the pause stands for the call over the network."""
    await asyncio.sleep(random.uniform(0.2, 0.6))
    if carrier == "Lost Parcels":
        raise ConnectionError(f"{carrier} does not answer")
    return round(4 + weight * random.uniform(0.5, 1.5), 2)
