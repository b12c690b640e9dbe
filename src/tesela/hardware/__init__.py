"""The machine: devices, number formats, memory, speed. Nothing here imports torch at module level but the device."""
