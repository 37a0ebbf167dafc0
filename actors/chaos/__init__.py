"""Real faults for real clusters: processes started for it are killed, stopped, cut off and run out of disk under load,
and what the frameworks were told is compared with what happened. `mesos-actor chaos` and scripts/soak use it.

A shell: it starts processes, reads their files and signals them. What judges (`judge`, `registers`) reads data only.
"""
