"""Many devices and many processes as one run.

sharding.py   the device mesh, and where arrays lie on it
processes.py  several processes: start, end, barriers, broadcasts
"""
