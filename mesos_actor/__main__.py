"""`python -m mesos_actor` is `mesos-actor`."""

from mesos_actor.actors.cli import main

if __name__ == "__main__":
    main()
