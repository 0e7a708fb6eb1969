"""A network namespace without any network, for the tests. Its last output is the number of packets that had no route.

torch requests the name of the address 127.0.0.1, in the notation of IPv6. It is in the hosts file here: otherwise torch
would send a request to a name server.
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
