"""The machine: devices, number formats, memory, speed."""
