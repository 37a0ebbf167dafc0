"""Real faults for real clusters: processes started for it are killed, stopped, cut off and run out of disk under load,
and what the frameworks were told is compared with what happened. `mesos-actor chaos` is its command.

A shell: it starts processes, reads their files and signals them. What judges (`judge`, `registers`) reads data only.
"""
