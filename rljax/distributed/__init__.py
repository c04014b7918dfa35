"""Many devices and many processes as one run.

sharding.py   the mesh, and where arrays lie on it
processes.py  several processes: who writes, barriers, broadcasts
"""
