"""What the load tests share: the proxies and how they are started, the origin, the client, and what is read from /proc.

Owns every process it starts: each is ended by its id when its `with` block ends, however it ends, and every wait has a
bound. Everything listens on loopback, on ports the kernel gave out.
Never decides what is measured: that is in `run`, `instructions`, `syscalls` and `idle`, and in `scenarios.toml`.
"""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import functools
import json
import mmap
import os
import platform
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ORIGIN = TARGET / "release/examples/origin"
PROXY_CPU = 0

# How each proxy is called: the configuration it reads, and the arguments that keep it in the foreground.
RIVALS = {
    "haproxy": ("haproxy.cfg", ["haproxy", "-db", "-f", "{config}"]),
    "haproxy-tuned": ("haproxy-tuned.cfg", ["haproxy", "-db", "-f", "{config}"]),
    "nginx": ("nginx.conf", ["nginx", "-e", "stderr", "-p", "{work}", "-c", "{config}"]),
    "coreway": ("coreway.toml", ["{coreway}", "--configFile={config}", f"--reactor.cores={PROXY_CPU}-{PROXY_CPU}"]),
}
# The same proxy with the steps of a usual site on every request.
RIVALS["coreway-chain"] = ("coreway-chain.toml", RIVALS["coreway"][1])
# The same proxy, with a path that wants a password.
RIVALS["coreway-passwords"] = ("coreway-passwords.toml", RIVALS["coreway"][1])
# What a request says for those steps to let it pass.
CHAIN_FIELDS = ["Authorization: Basic dGVzdDp0ZXN0"]
PACKAGES = {
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "openssl": "openssl",
    "valgrind": "valgrind",
    "strace": "strace",
}
# What a proxy listens on, each on a port of its own: HTTP/1.1; HTTP/2 without TLS; TLS with an ECDSA P-256 or an RSA 2048
# certificate, for both versions of HTTP.
ENTRIES = ("PROXY", "H2C", "TLS", "TLS_RSA")


class Problem(Exception):
    """Something the person at the keyboard has to know. Printed without a traceback."""


# ---- The command line, and what must be there before anything is measured.


def arguments(description):
    """The options every tool has; a tool adds its own and calls `parse_args`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--proxies", default="coreway,haproxy,nginx", help="which, in which order (default: %(default)s)")
    parser.add_argument("--coreway", type=Path, help="use this binary, and the origin as it is, instead of building them")
    parser.add_argument("--no-results", action="store_true", help="print only; keep nothing under loadtest/results/")
    return parser


def prepare(options, programs=()):
    """Installs missing programs (as root), builds the release binaries, and fills in `options.coreway`."""
    options.proxies = [name for name in options.proxies.split(",") if name]
    for name in options.proxies:
        if name not in RIVALS:
            raise Problem(f"unknown proxy {name!r}; known are {', '.join(RIVALS)}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = ({family(name) for name in options.proxies} - {"coreway"}) | set(programs)
    install(sorted(program for program in needed if shutil.which(program) is None))
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--example", "origin"]
    if options.coreway is None and "coreway" in map(family, options.proxies):
        build += ["--bin", "coreway"]
    if options.coreway is None or not ORIGIN.exists():
        if subprocess.run(build, cwd=ROOT, timeout=1800).returncode != 0:
            raise Problem("the build failed")
    options.coreway = (options.coreway or TARGET / "release/coreway").resolve()


def family(name):
    """The program that a proxy is: `haproxy` of `haproxy-tuned`."""
    return name.split("-")[0]


def install(programs):
    """Installs Debian packages for programs that are missing."""
    if not programs:
        return
    packages = [PACKAGES[program] for program in programs]
    if os.geteuid() != 0:
        raise Problem(f"missing: {', '.join(programs)}. Install them: apt-get install {' '.join(packages)}")
    print(f"installing {' '.join(packages)}", file=sys.stderr)
    # A policy that forbids starting services: the packages must not take ports or processors while we measure.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", *packages]):
            subprocess.run(command, env=quiet, check=True, timeout=600, stdout=subprocess.DEVNULL)
    except subprocess.SubprocessError as error:
        raise Problem(f"could not install {' '.join(packages)}: {error}") from error
    finally:
        if ours:
            policy.unlink()


def tool(main):
    """Runs a tool's `main`; a signal ends it through its `with` blocks, so nothing is left running."""

    def stop(number, _frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"loadtest: {problem}", file=sys.stderr)
        sys.exit(1)


# ---- Processes.


@functools.cache
def others():
    """The CPUs of the client and the origin, as taskset wants them: every one of ours but the proxy's."""
    rest = sorted(os.sched_getaffinity(0) - {PROXY_CPU})
    if not rest or PROXY_CPU not in os.sched_getaffinity(0):
        raise Problem(f"two CPUs are needed, one of them CPU {PROXY_CPU}")
    return ",".join(map(str, rest))


def free_port():
    """A loopback port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tree(pid):
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        for task in tasks(parent):
            found += map(int, task_file(parent, task, "children").split())
    return found


def end(process):
    """Ends a process we started and its children: politely, then not."""
    pids = tree(process.pid)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    if process.poll() is None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(5)


@contextlib.contextmanager
def started(command, log, cpus):
    """A process pinned to `cpus` (None: anywhere) for as long as the block runs. Its output goes to the file `log`."""
    if cpus is not None:
        command = ["taskset", "-c", str(cpus), *command]
    with open(log, "wb") as output:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        end(process)


def wait_for(port, process, log, seconds=15):
    """Waits until somebody listens on `port`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Problem(f"it ended at start with code {process.returncode}:\n{tail(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise Problem(f"nobody listens on port {port} after {seconds} s:\n{tail(log)}")


def tail(log):
    """The end of what a process said."""
    return Path(log).read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def origin():
    """The upstream; yields its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="origin-") as work:
        log = Path(work) / "log"
        with started([ORIGIN, f"127.0.0.1:{port}"], log, others()) as process:
            wait_for(port, process, log)
            yield port


@contextlib.contextmanager
def certificates():
    """A folder with a self-signed certificate of either kind, alone, its key, and both in one file."""
    kinds = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}
    with tempfile.TemporaryDirectory(prefix="certificates-") as folder:
        folder = Path(folder)
        for name, kind in kinds.items():
            command = ["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-days", "2", "-subj", "/CN=load.test"]
            command += ["-addext", "subjectAltName=DNS:load.test", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
            if done.returncode != 0:
                raise Problem(f"openssl said:\n{done.stderr}")
            both = (folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text()
            (folder / f"{name}.both.pem").write_text(both)
        yield folder


@dataclasses.dataclass
class Running:
    """A proxy that serves."""

    name: str
    ports: dict
    process: subprocess.Popen
    work: Path

    @property
    def port(self):
        """Where it speaks HTTP/1.1 without TLS."""
        return self.ports["PROXY"]

    def pids(self):
        return tree(self.process.pid)

    def cpu_ns(self):
        """Processor time of every thread so far, kernel included, by thread id."""
        used = {}
        for pid in self.pids():
            for task in tasks(pid):
                if text := task_file(pid, task, "schedstat"):
                    used[task] = int(text.split()[0])
        return used

    def rss_bytes(self):
        """Resident memory of its processes; pages they share count once for each."""
        return sum(status_kib(pid, "VmRSS") for pid in self.pids()) * 1024


def tasks(pid):
    """The thread ids of a process."""
    with contextlib.suppress(OSError):
        return [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    return []


def task_file(pid, task, name):
    """A file of /proc about one thread; empty if the thread is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/task/{task}/{name}").read_text()
    return ""


def processor_ticks():
    """What the proxy's whole processor has done so far, in ticks of 10 ms, whoever it did it for."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{PROXY_CPU}":
            user, nice, system, idle, waiting, irq, softirq, steal = map(int, ticks[:8])
            return {"busy": user + nice + system + irq + softirq, "softirq": softirq, "idle": idle + waiting, "steal": steal}
    return {}


def cpu_used(before, after):
    """Nanoseconds between two readings of `cpu_ns`. A thread that began in between counts whole."""
    return sum(ns - before.get(task, 0) for task, ns in after.items())


def status_kib(pid, field):
    """A size of a process, as /proc has it; 0 if it is gone."""
    for line in task_file(pid, pid, "status").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


@contextlib.contextmanager
def proxy(name, origin_port, options, wrapper=(), single_process=False, start_seconds=15, fields=()):
    """A proxy on the proxy's CPU in front of the origin, started fresh and checked to forward requests with these fields;
    yields `Running`.

    `wrapper` is put before its command (valgrind); `{work}` in it is the proxy's temporary folder. `single_process` keeps nginx from forking, for the same reason.
    """
    template, command = RIVALS[name]
    ports = {entry: free_port() for entry in ENTRIES}
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as work, certificates() as folder:
        config = Path(work) / template
        text = (HERE / "configs" / template).read_text()
        for key, value in {
            **ports,
            "CERTIFICATES": folder,
            "ORIGIN": origin_port,
            "WORK": work,
            "AFFINITY": format(1 << PROXY_CPU, "b"),
            "MASTER": "off" if single_process else "on",
        }.items():
            text = text.replace(f"@{key}@", str(value))
        config.write_text(text)
        command = [part.format(config=config, work=work, coreway=options.coreway) for part in command]
        log = Path(work) / "log"
        with started([*(part.format(work=work) for part in wrapper), *command], log, PROXY_CPU) as process:
            try:
                wait_for(ports["PROXY"], process, log, start_seconds)
                with nudged(ports["H2C"]) if wrapper else contextlib.nullcontext():
                    check_forwards(ports["PROXY"], origin_port, start_seconds, fields)
            except Problem as problem:
                raise Problem(f"{name}: {problem}") from problem
            yield Running(name, ports, process, Path(work))
            if process.poll() is not None:
                raise Problem(f"{name} ended while it was measured, with code {process.returncode}:\n{tail(log)}")


@contextlib.contextmanager
def nudged(port):
    """Connects to a proxy all the time while the block runs. Under valgrind one thread runs at a time, and one that waits in
    the kernel for its ring lets the others run only after it was woken some dozen times."""
    over = threading.Event()

    def nudge():
        while not over.wait(0.001):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                pass

    thread = threading.Thread(target=nudge)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# ---- Clients.


def get(port, path, seconds=5, fields=()):
    """One request on a connection of its own: (status, body)."""
    with socket.create_connection(("127.0.0.1", port), seconds) as stream:
        stream.sendall(request(path, ["Connection: close", *fields]))
        data = b""
        while piece := stream.recv(1 << 18):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def request(path, fields=()):
    extra = "".join(f"{field}\r\n" for field in fields)
    return f"GET {path} HTTP/1.1\r\nHost: load.test\r\nUser-Agent: loadtest\r\nAccept: */*\r\n{extra}\r\n".encode()


def check_forwards(port, origin_port, seconds, fields):
    """Compares the answers of a proxy with the origin's. A proxy may listen before it has a configuration: it gets time."""
    until = time.monotonic() + seconds
    for path in ("/", "/10k", "/1m"):
        expected = get(origin_port, path)
        while (answer := get(port, path, seconds, fields)) != expected:
            if time.monotonic() > until:
                raise Problem(f"{path} is answered with status {answer[0]} and {len(answer[1])} bytes")
            time.sleep(0.05)


def wrk(port, path, connections, seconds, close=False, tls=False, fields=()):
    """Loads a proxy with wrk from the other CPUs; returns what `report.lua` prints."""
    command = ["taskset", "-c", others(), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-s", str(HERE / "report.lua")]
    for field in [*fields, *(["Connection: close"] if close else [])]:
        command += ["-H", field]
    done = subprocess.run(
        [*command, f"http{'s' if tls else ''}://127.0.0.1:{port}{path}"], capture_output=True, text=True, timeout=seconds + 30
    )
    found = re.search(r"^REPORT (\{.*\})$", done.stdout, re.MULTILINE)
    if not found:
        raise Problem(f"wrk said:\n{done.stdout}{done.stderr}")
    return json.loads(found[1])


def h2load(port, path, connections, streams, seconds, tls=False):
    """Loads a proxy with HTTP/2, so many streams at once on each connection; returns what `wrk` returns."""
    command = ["taskset", "-c", others(), "h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}"]
    scheme = "https" if tls else "http"
    done = subprocess.run(
        [*command, f"{scheme}://127.0.0.1:{port}{path}"], capture_output=True, text=True, timeout=seconds + 30
    )
    counts = re.search(r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", done.stdout, re.MULTILINE)
    mean = re.search(r"^time for request: +\S+ +(\S+) +(\S+)", done.stdout, re.MULTILINE)
    if not counts or not mean or (tls and "Application protocol: h2" not in done.stdout):
        raise Problem(f"h2load said:\n{done.stdout}{done.stderr}")
    _, succeeded, failed, errored, timed_out = map(int, counts.groups())
    return {
        "requests": succeeded,
        "seconds": seconds,
        # It prints no percentiles but the largest and the mean: those stand in the table instead.
        "p50_us": microseconds(mean[2]),
        "p99_us": microseconds(mean[1]),
        "errors": {"failed": failed, "error": errored, "timeout": timed_out},
    }


def microseconds(text):
    """A duration as h2load writes it."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def handshakes(port, seconds, resumed=False):
    """One TLS 1.3 handshake after another with `openssl s_time`; a resumed one asks for `/`, which it takes to get a ticket."""
    command = ["taskset", "-c", others(), "openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-time", str(seconds)]
    command += ["-tls1_3", "-reuse", "-www", "/"] if resumed else ["-tls1_3", "-new"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    elapsed = time.monotonic() - began
    found = re.search(r"^(\d+) connections in \d+ real seconds", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not found:
        raise Problem(f"openssl s_time said:\n{done.stdout}{done.stderr}")
    count = int(found[1])
    each = 1e6 * elapsed / max(count, 1)
    return {"requests": count, "seconds": elapsed, "p50_us": each, "p99_us": each, "errors": {}}


def shared_counter():
    """A number that a forked process writes and its parent reads."""
    return memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")


def begin_handshakes(port, at_once, count):
    """Begins TLS handshakes for ever, so many at once: each ends, with a reset, when the proxy has answered. Counts those."""
    hello = client_hello()
    poll = select.epoll()
    streams = {}

    def begin():
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.connect(("127.0.0.1", port))
        stream.send(hello)
        streams[stream.fileno()] = stream
        poll.register(stream, select.EPOLLIN)

    for _ in range(at_once):
        begin()
    while True:
        for number, _ in poll.poll():
            answered = streams[number].recv(1)
            poll.unregister(number)
            streams.pop(number).close()
            if answered != b"\x16":
                raise Problem(f"no handshake: {answered!r}")
            count[0] += 1
            begin()


def client_hello():
    """The first message of a full handshake."""
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        tls_context("http/1.1").wrap_bio(ssl.MemoryBIO(), out, server_hostname="load.test").do_handshake()
    return out.read()


class Clients:
    """Keep-alive connections that each have at most one request under way: slower than wrk, but it sends an exact number."""

    PROTOCOL = "http/1.1"

    def __init__(self, port, connections, seconds=60, tls=False, fields=()):
        self.request = request("/", fields)
        self.until = time.monotonic() + seconds
        self.poll = select.epoll()
        self.streams = {}
        self.resting = collections.deque()
        for _ in range(connections):
            stream = connect(port, tls, self.PROTOCOL)
            self.streams[stream.fileno()] = stream
            self.greet(stream)
            self.resting.append(stream.fileno())
            self.poll.register(stream, select.EPOLLIN)

    def greet(self, stream):
        """What is said before the first request."""

    def question(self, number):
        """The next request of a connection."""
        return self.request

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for stream in self.streams.values():
            stream.close()
        self.poll.close()

    def ask(self, requests, at_once=None):
        """Sends `requests` requests, at most `at_once` under way (default: one on each connection), and waits for the
        answers. The connections take turns."""
        sent, done = 0, 0
        under_way = {}
        while done < requests:
            while sent < requests and len(under_way) < (at_once or len(self.streams)):
                number = self.resting.popleft()
                self.streams[number].send(self.question(number))
                under_way[number] = None
                sent += 1
            if time.monotonic() > self.until:
                raise Problem(f"{done} of {requests} answers in time")
            for number, _ in self.poll.poll(1):
                if self.receive(number, under_way):
                    del under_way[number]
                    self.resting.append(number)
                    done += 1

    def talk(self, seconds, every=0):
        """One request after another on each connection; returns what `wrk` returns. `every` is how many seconds apart those
        of all connections together begin; without it, each begins when the last is answered."""
        under_way, began, took = {}, {}, []
        start = now = time.monotonic()
        due = start
        while (now := time.monotonic()) < start + seconds or under_way:
            while self.resting and due <= now < start + seconds:
                number = self.resting.popleft()
                self.streams[number].send(self.question(number))
                under_way[number], began[number] = None, due if every else now
                due += every
            if now > start + seconds + 10:
                raise Problem(f"{len(under_way)} answers are missing")
            for number, _ in self.poll.poll(min(max(due - now, 0), 0.1) if every else 0.1):
                if self.receive(number, under_way):
                    del under_way[number]
                    self.resting.append(number)
                    took.append(time.monotonic() - began[number])
        took.sort()
        return {
            "requests": len(took),
            "seconds": now - start,
            "p50_us": 1e6 * took[len(took) // 2],
            "p99_us": 1e6 * took[len(took) * 99 // 100],
            "max_us": 1e6 * took[-1],
            "errors": {},
        }

    def receive(self, number, under_way):
        """Takes what has arrived on a connection; whether its answer is whole."""
        data = self.arrived(number)
        if data is None:
            return False
        if number not in under_way:
            raise Problem("something was said that nobody had asked for")
        if under_way[number] is None:
            head, found, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            if not found or not length or not head.startswith(b"HTTP/1.1 200"):
                raise Problem(f"unexpected answer {data[:200]!r}")
            under_way[number] = int(length[1]) - len(body)
        else:
            under_way[number] -= len(data)
        return under_way[number] == 0

    def arrived(self, number):
        """The bytes that have arrived, or None if there are none for us."""
        try:
            data = self.streams[number].recv(1 << 18)
        except ssl.SSLWantReadError:
            # A ticket, or half a record.
            return None
        except OSError as error:
            raise Problem(f"a connection failed: {error}") from error
        if not data:
            raise Problem("a connection was closed")
        return data


def connect(port, tls, protocol):
    """A connection to a proxy."""
    stream = socket.create_connection(("127.0.0.1", port), 30)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        stream = tls_context(protocol).wrap_socket(stream, server_hostname="load.test")
        stream.setblocking(False)
    return stream


@functools.cache
def tls_context(protocol):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


class WebSockets(Clients):
    """Connections that each send one short message after another, the next once the last has come back."""

    TEXT = b"a short message."
    # One frame, its mask 0 (RFC 6455, 5.2), and what comes back of it.
    MESSAGE = b"\x81" + bytes([0x80 | len(TEXT)]) + bytes(4) + TEXT
    BACK = b"\x81" + bytes([len(TEXT)]) + TEXT

    def greet(self, stream):
        stream.setblocking(True)
        stream.sendall(
            b"GET /ws HTTP/1.1\r\nHost: load.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = stream.recv(1)
            if not piece:
                raise Problem(f"no WebSocket: {head!r}")
            head += piece
        # The key and its proof are those of RFC 6455, 1.3.
        if not head.startswith(b"HTTP/1.1 101 ") or b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" not in head:
            raise Problem(f"no WebSocket: {head!r}")
        stream.setblocking(False)

    def question(self, number):
        return self.MESSAGE

    def receive(self, number, under_way):
        data = self.arrived(number)
        if data is None:
            return False
        back = (under_way[number] or b"") + data
        if not self.BACK.startswith(back):
            raise Problem(f"another message came back: {back!r}")
        under_way[number] = back
        return back == self.BACK


class H2Clients(Clients):
    """The same over HTTP/2: one stream at a time on each connection, and no more data than the first window has room for."""

    PROTOCOL = "h2"
    DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
    END_STREAM, ACK, END_HEADERS = 1, 1, 4

    @staticmethod
    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    @staticmethod
    def line(name, value):
        """A field that both ends remember (RFC 7541, 6.2.1), its name by number."""
        return bytes([0x40 | name, len(value)]) + value

    def greet(self, stream):
        stream.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(self.SETTINGS, 0, 0))
        self.heads = getattr(self, "heads", {})
        self.rests = getattr(self, "rests", {})
        self.heads[stream.fileno()] = -1
        self.rests[stream.fileno()] = b""

    def question(self, number):
        self.heads[number] += 2
        # GET, http, /; then :authority, user-agent and accept, which the table of the connection has from the second time on.
        if self.heads[number] == 1:
            fields = self.line(1, b"load.test") + self.line(58, b"loadtest") + self.line(19, b"*/*")
        else:
            fields = bytes([0x80 | 64, 0x80 | 63, 0x80 | 62])
        return self.frame(self.HEADERS, self.END_STREAM | self.END_HEADERS, self.heads[number], b"\x82\x86\x84" + fields)

    def receive(self, number, under_way):
        data = self.arrived(number)
        if data is None:
            return False
        data, done = self.rests[number] + data, False
        while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:3], "big")):
            kind, flags, payload, data = data[3], data[4], data[9 : 9 + length], data[9 + length :]
            if kind == self.SETTINGS and not flags & self.ACK:
                self.streams[number].send(self.frame(self.SETTINGS, self.ACK, 0))
            elif kind == self.HEADERS and payload[:1] not in (b"\x88", b"\x20", b"\x3f"):
                raise Problem(f"unexpected head {payload!r}")
            elif kind in (self.DATA, self.HEADERS):
                done = done or bool(flags & self.END_STREAM)
            elif kind == self.PING or kind == self.GOAWAY or kind == 3:
                raise Problem(f"unexpected frame of kind {kind}: {payload!r}")
        self.rests[number] = data
        return done


# ---- Results.


def output(command):
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
        return (done.stdout + done.stderr).strip()
    return ""


def environment(options):
    """What somebody needs to judge or repeat the numbers."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    version = {
        "haproxy": ["haproxy", "-v"],
        "nginx": ["nginx", "-v"],
        "wrk": ["wrk", "-v"],
        "h2load": ["h2load", "--version"],
        "openssl": ["openssl", "version"],
        "valgrind": ["valgrind", "--version"],
        "rustc": ["rustc", "--version"],
    }
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": output(["git", "rev-parse", "HEAD"]),
        "changed": output(["git", "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock", "loadtest/configs"]).splitlines(),
        "kernel": platform.release(),
        "cpu": cpu[1] if cpu else platform.processor(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "versions": {name: output(command).split("\n")[0] for name, command in version.items() if shutil.which(command[0])},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def keep(options, tool_name, result, table):
    """Writes the raw numbers and the table to `results/<date>-<machine>/`, and a page for conclusions if there is none."""
    if options.no_results:
        return
    env = result["environment"]
    machine = re.sub(r"[^a-z0-9]+", "-", f"{env['cpu']} {env['cpus']}cpu".lower()).strip("-")
    folder = HERE / "results" / f"{env['date'][:10]}-{machine}"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{tool_name}-{env['commit'][:8] or 'unknown'}"
    number = 1
    while (folder / f"{stem}{'' if number == 1 else f'-{number}'}.json").exists():
        number += 1
    stem += "" if number == 1 else f"-{number}"
    # A line for each measurement, so that two files can be compared.
    parts = []
    for key, value in result.items():
        text = json.dumps(value, indent=1)
        if isinstance(value, list):
            text = "[\n " + ",\n ".join(map(json.dumps, value)) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    (folder / f"{stem}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
    (folder / f"{stem}.txt").write_text(table + "\n")
    conclusions = folder / "conclusions.md"
    if not conclusions.exists():
        versions = "\n".join(f"- {name}: {value}" for name, value in env["versions"].items())
        conclusions.write_text(
            f"# {env['date'][:10]}, {env['cpu']}, {env['cpus']} CPUs, Linux {env['kernel']}\n\n{versions}\n\n"
            "Each `.txt` beside this page is the table of one run, each `.json` its raw numbers; the name carries the commit.\n\n"
            "## What was reached\n\n## What was missed, and why\n\n## What to try next\n"
        )
    print(f"\nkept in {(folder / stem).relative_to(ROOT)}.json and .txt")


def columns(rows):
    """Rows of text as a table; columns of numbers are aligned right, the others left."""
    table = []
    for column in zip(*rows):
        width = max(map(len, column))
        numbers = all(re.fullmatch(r"[\d.-]+", cell) for cell in column[1:])
        table.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*table))
