"""What a run needs before it is run: steps, memory, disk, days and energy on a machine of config/hardware/."""
