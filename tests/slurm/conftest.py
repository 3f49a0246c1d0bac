"""A real SLURM cluster of two virtual nodes with accounting on this machine, for the tests of this folder.

Needs root and Debian's slurm-wlm, slurmdbd, munge and mariadb-server; where any of them is absent the tests are
skipped. Everything lives in a temporary folder: keys, sockets, the accounting database, the controller's state.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sbatch")
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PLAIN = ["--no-defaults", "--user=mysql"]
DAEMON = """AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={dbd}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass=slurm
StorageLoc=accounts
"""
CLUSTER = """ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
JobRequeue=1
KillWait=20
MinJobAge=3600
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
JobAcctGatherType=jobacct_gather/linux
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 RealMemory=3000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 RealMemory=3000 State=UNKNOWN
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A running cluster; commands of SLURM speak to it through SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, []
        self.environment = {**os.environ, "PATH": SEARCH, "SLURM_CONF": str(folder / "slurm.conf"), "CI": "true"}

    def start(self) -> None:
        folder, ports = self.folder, free_ports(5)
        for name in ("state", "database"):
            (folder / name).mkdir(parents=True)
        names = dict(zip(("dbd", "sql", "controller", "first", "second"), ports, strict=True))
        names |= {"folder": folder, "host": socket.gethostname().partition(".")[0]}
        (folder / "slurmdbd.conf").write_text(DAEMON.format(**names))
        (folder / "slurmdbd.conf").chmod(0o600)
        (folder / "slurm.conf").write_text(CLUSTER.format(**names))
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        self.munge()
        self.database(names["sql"])
        self.launch("slurmdbd", "-D")
        self.until("sacctmgr", "-n", "-i", "show", "cluster")
        self.call("sacctmgr", "-n", "-i", "add", "cluster", "tests")
        self.launch("slurmctld", "-D", "-c")
        self.until("scontrol", "ping")
        for node in ("n1", "n2"):
            self.launch("slurmd", "-D", "-N", node)
        self.until("bash", "-c", "[ $(sinfo -h -N -t idle | wc -l) -ge 2 ]")
        self.call("sacctmgr", "-n", "-i", "add", "account", "tests", "cluster=tests")
        self.call("sacctmgr", "-n", "-i", "add", "user", "root", "account=tests")

    def munge(self) -> None:
        names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "log-file": "munge.log"}
        names["seed-file"] = "munge.seed"
        options = [f"--{option}={self.folder / name}" for option, name in names.items()]
        self.launch("munged", "--foreground", "--force", *options)
        self.until("munge", "-n", f"--socket={self.folder / 'munge.socket'}")

    def database(self, port: int) -> None:
        where, reach = self.folder / "database", f"--socket={self.folder / 'sql'}"
        shutil.chown(where, "mysql")
        install = ["mariadb-install-db", *PLAIN, f"--datadir={where}", "--auth-root-authentication-method=normal"]
        self.until(*install)
        listen = [f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={where / 'pid'}"]
        shutil.chown(self.folder, "mysql")
        self.launch("mariadbd", *PLAIN, f"--datadir={where}", reach, *listen, "--innodb-lock-wait-timeout=900")
        self.until("mariadb-admin", "--no-defaults", reach, "-uroot", "ping")
        grants = "".join(
            f"create user slurm@'{host}' identified by 'slurm'; grant all on accounts.* to slurm@'{host}';"
            for host in ("127.0.0.1", "localhost")
        )
        self.call("mariadb", "--no-defaults", reach, "-uroot", "-e", f"create database accounts; {grants}")

    def launch(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "ab") as out:
            self.started.append(subprocess.Popen(command, env=self.environment, stdout=out, stderr=out))

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout} {done.stderr}"
        return done.stdout.strip()

    def until(self, *command: str, seconds: float = 150.0) -> None:
        end, tries = time.monotonic() + seconds, ["timeout", "120", *command]  # some wait for a daemon without end
        while (done := subprocess.run(tries, env=self.environment, capture_output=True, text=True)).returncode:
            if time.monotonic() > end:
                pytest.skip(f"the cluster does not start here: {' '.join(command)}: {done.stdout} {done.stderr}")
            time.sleep(0.3)

    def state(self, job: str) -> str:
        return self.call("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")

    def wait(self, job: str, states: tuple[str, ...] = ("COMPLETED",), seconds: float = 300.0) -> str:
        """Wait until the job is in one of the states; fails at once where it can no longer get there."""
        end = time.monotonic() + seconds
        while (state := self.state(job)) not in states:
            assert state not in {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "COMPLETED"}, f"{job} is {state}"
            assert time.monotonic() < end, f"{job} is still {state}"
            time.sleep(0.5)
        return state

    def hurry(self, job: str) -> None:
        """Wait until the job is back in the queue, and spare it the two minutes that SLURM lets it wait there."""
        self.wait(job, ("PENDING",), 120.0)
        end = time.monotonic() + 60.0
        while subprocess.run(
            ["scontrol", "update", f"jobid={job}", "starttime=now"], env=self.environment, capture_output=True
        ).returncode:
            assert time.monotonic() < end, "SLURM keeps the job waiting"
            time.sleep(0.5)

    def stop(self) -> None:
        """End what was started here, last first."""
        subprocess.run(["timeout", "30", "scancel", "--user=root"], env=self.environment, capture_output=True)
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    holders = [socket.socket() for _ in range(count)]
    for holder in holders:
        holder.bind(("127.0.0.1", 0))
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    absent = [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]
    if absent or os.geteuid():
        pytest.skip(f"a SLURM cluster needs root and {', '.join(PROGRAMS)}; absent: {', '.join(absent) or 'root'}")
    folder = Path(tmp_path_factory.mktemp("slurm"))
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # the database runs as a user of its own
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
