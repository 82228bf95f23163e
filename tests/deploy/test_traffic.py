"""The demo's traffic asks what a gateway answers."""

import asyncio
import sys

from tests.deploy.promtool import DEPLOY
from tests.support.harness import MODEL, STREAM, over, says, streamed, until


async def test_the_traffic_reaches_an_engine_again_and_again() -> None:
    async with over(says(streamed(*STREAM))) as (front, behind):
        url = f"http://127.0.0.1:{front.port}"
        asking = await asyncio.create_subprocess_exec(sys.executable, str(DEPLOY / "traffic.py"), url, MODEL)
        try:
            await until(lambda: len(behind.asked) > 5)
            assert {asked.json["messages"][0]["role"] for asked in behind.asked} == {"user"}
        finally:
            asking.kill()
            await asking.wait()
