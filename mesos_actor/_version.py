"""The one place that holds the version; setup.cfg and `mesos-actor --version` read it."""

__version__ = "0.1.0"
