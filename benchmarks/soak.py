"""Kill, stop and cut the processes of a real cluster under load, and check that nothing was lost.

    python benchmarks/soak.py [--minutes 1 | --kills 100] [--seed N] [--masters 3] [--agents 3] [--cut] [--keep]

A thin use of `mesos-actor chaos` (actors/chaos), with the options of a measurement: so many kills, or so many minutes.
Masters (half of the time the leader), agents and frameworks are killed with kill -9 and started again after 0.2 to 3 s,
any of them is stopped with SIGSTOP for 0.5 to 4 s, and with --cut cut off the network, each in a namespace of its own
(as root). The exit status is 0 when nothing was lost, ran twice or was told wrongly, and the cluster is in order.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from mesos_actor.actors.chaos.hosts import enter
from mesos_actor.actors.chaos.report import lines
from mesos_actor.actors.chaos.run import Options, chaos
from mesos_actor.actors.errors import InvalidInput


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to disturb (default 1)")
    parser.add_argument("--kills", type=int, default=0, help="disturb until so many were killed, instead")
    parser.add_argument("--seed", type=int, default=None, help="of what is done when; the default is another each time")
    parser.add_argument("--masters", type=int, default=3)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--cut", action="store_true", help="cut hosts off the network too; needs root")
    parser.add_argument("--keep", action="store_true", help="keep logs and state (they are kept after a failure)")
    given = parser.parse_args()
    options = Options(
        duration_s=given.minutes * 60,
        kills=given.kills,
        pause=True,
        cut=given.cut,
        masters=given.masters,
        agents=given.agents,
        seed=random.randrange(1_000_000) if given.seed is None else given.seed,
    )
    try:
        options.check()
        enter(given.cut, False)
        options.keep = Path(tempfile.mkdtemp(prefix="mesos-actor-soak-")) if given.keep else None
        report = chaos(options, lambda text: print(text, flush=True))
    except InvalidInput as error:
        parser.error(str(error))
    print("\n".join(lines(report)))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
