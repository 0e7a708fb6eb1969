"""A machine whose only network is its own, for the tests; what it prints last is how often something tried to leave it.

torch asks for the name of its own address, 127.0.0.1 as IPv6 writes it: told here, or that would be a question to a
name server.
"""

import functools
import shutil
import subprocess

import pytest

_SCRIPT = """
ip link set lo up && ip addr add 127.0.0.2/8 dev lo
hosts=$(mktemp) && echo "127.0.0.1 localhost $(hostname)
::ffff:127.0.0.1 localhost" > "$hosts" && mount --bind "$hosts" /etc/hosts
"$@"; code=$?
rm "$hosts"
python3 - <<END
lines = open("/proc/net/snmp").read().split("\\n")
names, counts = [line.split() for line in lines if line.startswith("Ip:")]
print("OutNoRoutes", dict(zip(names, counts))["OutNoRoutes"])
END
exit $code
"""
NAMESPACE = ("unshare", "--net", "--mount", "--map-root-user", "bash", "-c", _SCRIPT, "bash")


@functools.cache
def permitted() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


needs_namespace = pytest.mark.skipif(
    not permitted(), reason="not run: this user may not make a network namespace, or has no `ip`"
)
