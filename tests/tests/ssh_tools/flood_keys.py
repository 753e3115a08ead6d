"""Bad keys as fast as they are refused, over 50 connections at a time, until the time is over or so many were offered.
Arguments: port, known_hosts, seconds, keys, addresses. Each connection comes from the next of the addresses 127.0.1.N.

Prints "begun" once the first key was refused, and at the end how many were offered."""

import asyncio
import sys
import time

import asyncssh

port, known, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
most, addresses = int(sys.argv[4]), int(sys.argv[5])
keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(64)]
offered = connections = 0


class Offers(asyncssh.SSHClient):
    """As many keys as the server wants to see."""

    def public_key_auth_requested(self):
        global offered
        if offered == 1:
            print("begun", flush=True)
        offered += 1
        return keys[offered % len(keys)]


async def again_and_again(until):
    global connections
    while time.monotonic() < until and offered < most:
        connections += 1
        try:
            await asyncio.wait_for(
                asyncssh.connect(
                    "127.0.0.1", port, username="dev", client_factory=Offers, known_hosts=known,
                    agent_path=None, config=None, preferred_auth="publickey",
                    local_addr=(f"127.0.1.{connections % addresses + 1}", 0),
                ),
                until - time.monotonic() + 0.1,
            )
        except (asyncssh.Error, OSError, asyncio.TimeoutError):
            continue
        sys.exit("a bad key logged in")


async def main():
    until = time.monotonic() + seconds
    await asyncio.gather(*(again_and_again(until) for _ in range(50)))
    print("offered", offered, "connections", connections, flush=True)


asyncio.run(main())
