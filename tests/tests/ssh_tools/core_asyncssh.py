"""The core of SSH with asyncssh: exec, terminal, signals, SFTP, forwards. Arguments: port, key, known_hosts, project."""

import asyncio
import os
import sys

import asyncssh

port, key, known, project = int(sys.argv[1]), *sys.argv[2:5]


async def main():
    options = dict(username="dev", client_keys=[key], known_hosts=known)
    async with asyncssh.connect("127.0.0.1", port, **options) as client:
        for command, code in (("true", 0), ("false", 1), ("exit 137", 137)):
            assert (await client.run(command)).exit_status == code, command
        assert (await client.run("pwd")).stdout.strip() == project
        assert (await client.run("cat", input="hello")).stdout == "hello"
        killed = await client.run("kill -TERM $$")
        assert killed.exit_signal[0] == "TERM", killed.exit_signal

        process = await client.create_process("trap 'echo got it; exit 9' USR1; echo up; while :; do sleep 0.05; done")
        assert (await process.stdout.readline()).strip() == "up"
        process.send_signal("USR1")
        done = await process.wait()
        assert (done.stdout.strip(), done.exit_status) == ("got it", 9), done

        process = await client.create_process("stty size; read x; stty size", term_type="xterm", term_size=(77, 11))
        assert (await process.stdout.readline()).strip() == "11 77"
        process.change_terminal_size(66, 22)
        process.stdin.write("\n")
        assert "22 66" in (await process.wait()).stdout

        data = os.urandom(20 << 20)
        async with client.start_sftp_client() as sftp:
            assert await sftp.realpath(".") == project
            async with sftp.open("big", "wb") as file:
                await file.write(data)
                await file.fsync()
            async with sftp.open("big", "rb") as file:
                assert await file.read() == data
            await sftp.link("big", "hard")
            assert (await sftp.stat("hard")).nlink in (None, 2)
            space = await sftp.statvfs(".")
            assert space.bsize > 0 and space.bavail > 0
            await sftp.symlink("big", "soft")
            assert await sftp.readlink("soft") == "big"
            await sftp.setstat("big", asyncssh.SFTPAttrs(permissions=0o600, atime=1, mtime=2))
            found = await sftp.stat("soft")
            assert (found.permissions & 0o777, found.mtime, found.size) == (0o600, 2, len(data)), found
            try:
                await sftp.rename("hard", "soft")
                raise SystemExit("a plain rename replaced something")
            except asyncssh.SFTPError:
                pass
            await sftp.posix_rename("hard", "soft")
            await sftp.mkdir("d")
            await sftp.put(key + ".pub", "d/", recurse=True)
            assert sorted(await sftp.listdir("d")) == [".", "..", "id.pub"]
            await sftp.rmtree("d")
            for name in ("big", "soft"):
                await sftp.remove(name)

        async def hello(reader, writer):
            writer.write(b"hello")
            writer.close()

        service = await asyncio.start_server(hello, "127.0.0.1", 0)
        there = service.sockets[0].getsockname()[1]
        reader, _ = await client.open_connection("127.0.0.1", there)
        assert await reader.read() == b"hello"
        listener = await client.forward_remote_port("127.0.0.1", 0, "127.0.0.1", there)
        reader, _ = await asyncio.open_connection("127.0.0.1", listener.get_port())
        assert await reader.read() == b"hello"
        listener.close()
        many = await asyncio.gather(*(client.run(f"echo {n}") for n in range(20)))
        assert [one.stdout for one in many] == [f"{n}\n" for n in range(20)]
    print("all done")


asyncio.run(main())
