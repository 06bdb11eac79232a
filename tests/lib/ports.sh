# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Ports of this machine for servers that a test starts: sourced by tests.

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # PORT
free_ports() { # two, which nobody has just now
    python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))'
}
