"""What the agent tells a process it launches, by environment variable.

The agent and its containerizer set these; an executor, a command task and `run_executor` read them. The names that
start with `MESOS_` and mean the same as in Mesos keep Mesos' spelling (docs/executor-http-api.md).
"""

from __future__ import annotations

AGENT_ADDRESS = "MESOS_ACTOR_AGENT"
"""The mailbox of the agent that launched this process: `tcp://host:port/agent`. Executors only."""

FRAMEWORK_ID = "MESOS_FRAMEWORK_ID"
"""The framework whose task or executor this is."""

EXECUTOR_ID = "MESOS_EXECUTOR_ID"
"""The name of this executor. Executors only."""

CONTAINER_ID = "MESOS_CONTAINER_ID"
"""The container this process runs in; the agent knows an executor by it."""

AGENT_ID = "MESOS_AGENT_ID"
"""The agent that launched this process."""

TASK_ID = "MESOS_TASK_ID"
"""The task this process is. Command tasks only."""

SANDBOX = "MESOS_SANDBOX"
"""The absolute path of the sandbox, which is also the working directory at start."""

CONTAINER_IP = "MESOS_CONTAINER_IP"
"""The address of a container of network `bridge` that its agent made itself; Docker Engine's is not known before."""

PORTS = "MESOS_ACTOR_PORTS"
"""The published ports of a container of network `bridge`: `31000:8080/tcp,31001:53/udp`, the host's first."""

PYTHON = "MESOS_ACTOR_PYTHON"
"""The absolute path of the interpreter that the agent itself runs on. Executors only; the containerizer sets it."""

EXECUTOR_KEY = "MESOS_ACTOR_EXECUTOR_KEY"
"""The CURVE secret key (Z85, 40 characters) that authenticates this executor as `executor:<container id>`.
Absent when the cluster runs without encryption. `run_executor` removes it before user code runs."""

CLUSTER_PUBLIC_KEY = "MESOS_ACTOR_CLUSTER_KEY"
"""The public key (Z85, 40 characters) that the agent's socket proves to hold. Absent without encryption."""

RESERVED = frozenset(
    {
        AGENT_ADDRESS,
        AGENT_ID,
        FRAMEWORK_ID,
        EXECUTOR_ID,
        CONTAINER_ID,
        TASK_ID,
        SANDBOX,
        CONTAINER_IP,
        PORTS,
        PYTHON,
        EXECUTOR_KEY,
        CLUSTER_PUBLIC_KEY,
    }
)
"""A command's own environment cannot override these."""
