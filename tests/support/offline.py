"""A network namespace without any network, for the tests. Its last output: the number of packets without a route."""

import functools
import shutil
import subprocess

import pytest

_SCRIPT = """
ip link set lo up && ip addr add 127.0.0.2/8 dev lo
"$@"; code=$?
python3 - <<END
lines = open("/proc/net/snmp").read().split("\\n")
names, counts = [line.split() for line in lines if line.startswith("Ip:")]
print("OutNoRoutes", dict(zip(names, counts))["OutNoRoutes"])
END
exit $code
"""
NAMESPACE = ("unshare", "--net", "--map-root-user", "bash", "-c", _SCRIPT, "bash")


@functools.cache
def permitted() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


needs_namespace = pytest.mark.skipif(
    not permitted(), reason="not run: this user may not make a network namespace, or has no `ip`"
)
