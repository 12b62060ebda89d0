"""For authors of drivers: what every device must do, and a device that fails on purpose.

A driver's test is a class in a test module::

    class TestMyCamera(DeviceConformance):
        @staticmethod
        def make():
            return MyCamera("usb:0")

`ConnectedDeviceConformance` adds what holds for a device that can be absent or unplugged. Outside of a test
module one line does: ``check_device(MyCamera("usb:0"))``.
"""

from __future__ import annotations

from datastore_lab.testing.devices.checks import check_block, check_description, check_device
from datastore_lab.testing.devices.faulty import Faulty
from datastore_lab.testing.devices.suite import ConnectedDeviceConformance, DeviceConformance

__all__ = [
    "ConnectedDeviceConformance",
    "DeviceConformance",
    "Faulty",
    "check_block",
    "check_description",
    "check_device",
]
