from procrastinate.contrib.django import app

from bench import tasks


@app.task(name="noop")
async def noop() -> None:
    tasks.noop()


@app.task(name="cpu")
async def cpu() -> None:
    tasks.cpu()


@app.task(name="sleep")
async def sleep() -> None:
    await tasks.sleep_async()


@app.task(name="stamp")
async def stamp(number: int) -> None:
    tasks.stamp(number)
