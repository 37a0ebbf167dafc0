"""What every containerizer promises, of the simulated one and of real processes."""

from tests.isolation.conformance import *  # noqa: F403 - the tests themselves
