"""An EPICS server with a few process variables: ``python ioc.py`` runs until it is killed."""

import time

from caproto import ChannelType
from caproto.server import PVGroup, pvproperty, run


class Lab(PVGroup):
    temperature = pvproperty(value=20.0, units="C", precision=3)
    spectrum = pvproperty(value=[1.0, 2.0, 3.0])
    count = pvproperty(value=0)
    state = pvproperty(value="off", enum_strings=["off", "on"], dtype=ChannelType.ENUM, record="bi")
    label = pvproperty(value="Cu-Zn", dtype=ChannelType.STRING)

    @count.startup
    async def count(self, instance, async_lib):
        began, number = time.monotonic(), 0
        while True:
            number += 1
            await instance.write(number)
            await async_lib.library.sleep(max(0.0, began + number * 0.02 - time.monotonic()))


async def ready(_async_lib):
    print("ready", flush=True)


if __name__ == "__main__":
    run(Lab(prefix="LAB:").pvdb, interfaces=["127.0.0.1"], log_pv_names=False, startup_hook=ready)
