"""The core of SSH with paramiko: exec, terminal, SFTP, a forward. Arguments: port, key, known_hosts, project."""

import hashlib
import os
import socket
import sys
import threading

import paramiko

port, key, known, project = int(sys.argv[1]), *sys.argv[2:5]
client = paramiko.SSHClient()
client.load_host_keys(known)
client.set_missing_host_key_policy(paramiko.RejectPolicy())
client.connect("127.0.0.1", port, "dev", key_filename=key, look_for_keys=False, allow_agent=False)

for command, code in (("true", 0), ("false", 1), ("exit 137", 137)):
    _, out, _ = client.exec_command(command)
    assert out.channel.recv_exit_status() == code, command
_, out, _ = client.exec_command("pwd")
assert out.read().decode().strip() == project

channel = client.invoke_shell(term="xterm", width=77, height=11)
channel.send(b"stty size; exit 4\n")
seen = b""
while part := channel.recv(4096):
    seen += part
assert b"11 77" in seen, seen
assert channel.recv_exit_status() == 4

sftp = client.open_sftp()
assert sftp.normalize(".") == project
data = os.urandom(20 << 20)
with sftp.open("big", "wb") as file:
    file.set_pipelined(True)
    file.write(data)
with sftp.open("big", "rb") as file:
    file.prefetch()
    assert hashlib.sha256(file.read()).digest() == hashlib.sha256(data).digest()
with sftp.open("log", "ab") as file:
    file.write(b"one\n")
with sftp.open("log", "ab") as file:
    file.write(b"two\n")
with sftp.open("log", "r+") as file:
    file.truncate(4)
assert sftp.stat("log").st_size == 4
try:
    sftp.open("log", "x")
    raise SystemExit("an exclusive open of what is there")
except OSError:
    pass
sftp.chmod("log", 0o600)
sftp.utime("log", (1, 2))
assert (sftp.stat("log").st_mode & 0o777, sftp.stat("log").st_mtime) == (0o600, 2)
sftp.mkdir("d")
sftp.posix_rename("log", "big")
assert sftp.stat("big").st_size == 4
sftp.symlink("big", "d/link")
assert sftp.readlink("d/link") == "big"
assert sorted(sftp.listdir(".")) == ["big", "d"]
sftp.remove("d/link")
sftp.rmdir("d")
sftp.remove("big")

service = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: service.accept()[0].sendall(b"hello"), daemon=True).start()
forward = client.get_transport().open_channel("direct-tcpip", service.getsockname(), ("127.0.0.1", 1))
assert forward.recv(5) == b"hello"
reverse = client.get_transport().request_port_forward("127.0.0.1", 0)
there = socket.create_connection(("127.0.0.1", reverse))
accepted = client.get_transport().accept(20)
accepted.sendall(b"back")
assert there.recv(4) == b"back"
client.close()
print("all done")
