"""What an agent and its launcher cost while nothing happens.

    python benchmarks/idle.py [--seconds 30]

Prints proportional memory (PSS) and CPU of each over that time, with a master beside them that pings as it always does.
"""

from __future__ import annotations

import argparse
import time

from local_cluster import local_cluster, memory_mib, quiet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    print(quiet())
    with local_cluster() as cluster:
        cluster.add_agent("agent", "cpus:64;mem:256;disk:1000")
        time.sleep(2)
        before = cluster.cpu_s()
        time.sleep(options.seconds)
        after = cluster.cpu_s()
        memory = {name: memory_mib(pid) for name, pid in cluster.pids.items()}
        for name in cluster.pids:
            percent = 100 * (after[name] - before[name]) / options.seconds
            print(f"{name}: PSS {memory[name]:.1f} MiB, {percent:.2f} % of a core")
        node = [name for name in cluster.pids if name != "master"]
        percent = sum(100 * (after[name] - before[name]) / options.seconds for name in node)
        pss = sum(memory[name] for name in node)
        print(f"agent and launcher: PSS {pss:.1f} MiB, {percent:.2f} % of a core (Ray: 707 MB)")


if __name__ == "__main__":
    main()
