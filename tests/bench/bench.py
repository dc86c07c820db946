"""RabbitMQ's own PerfTest, direct and through a sidecar.

Each round runs "direct" twice, "haproxy" and "sidecar" once, in an order that turns with the rounds.
What the two direct runs differ by is the noise (A/A) that a difference to the sidecar must be held
against; HAProxy in TCP mode, on the sidecar's core, shows what any hop costs that only passes bytes.
Broker and PerfTest share one core, the sidecar has another. The load: 1 kB, publisher confirms,
manual acks; once as fast as it goes, once at half of what direct reached. Besides: clients that
connect, publish and close, 100 a second.

Only the standard library; prints a table and writes JSON.
"""

import argparse
import json
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import CACHE, ROOT, Child, cpu_seconds, median, peak_kib, pinned

BROKER, SIDECAR, HAPROXY, ADMIN = 25801, 25811, 25812, 25821


def await_port(port, child):
    for _ in range(600):
        if child.process.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as link:
                link.settimeout(2)
                link.sendall(b"AMQP\0\0\x09\x01")
                if link.recv(1) == b"\x01":
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"nobody answers on port {port}: {Path(child.log.name).read_text()[-2000:]}")


def instructions_per_message(options, config, core, other, at):
    """Instructions of the agent in user space, a message: Valgrind counts them, with two numbers of
    messages, so that start and end drop out. Hardware counters are often not there in a machine
    of a cloud."""
    counts = {}
    for messages in (1000, 4000):
        log = at / f"callgrind-{messages}.log"
        agent = Child(pinned(other, ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                                     options.agent, "--config", config]), log)
        try:
            await_port(SIDECAR, agent)
            subprocess.run(pinned(core, PERFTEST + [
                "--uri", f"amqp://guest:guest@127.0.0.1:{SIDECAR}", "-s", "1000", "-c", "200",
                "-q", "400", "-A", "20", "-C", messages, "-D", messages, "-r", "500", "-u", "count",
                "-ad", "true"]), stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)
        finally:
            agent.end()
        counts[messages] = int(re.search(r"Collected : (\d+)", log.read_text())[1])
    return (counts[4000] - counts[1000]) / 3000


PERFTEST = ["java", "-Xmx512m", "-cp", f"{CACHE}/jars/*", "com.rabbitmq.perf.PerfTest",
            "-x", "1", "-y", "1"]

# Java compiles PerfTest and warms up for about this long, on the core that the broker needs too.
WARM_UP = 6
INTERVAL = re.compile(
    r"time ([\d.]+) s, sent: (\d+) msg/s.* received: (\d+) msg/s.*"
    r"consumer latency: ([\d/]+) (µs|ms), confirm latency: ([\d/]+) (µs|ms)")


def perftest(port, seconds, rate, core, log):
    """One run; rates in messages a second, latencies in microseconds. PerfTest says both for each
    second; taken are the medians of the seconds after the warm-up."""
    command = PERFTEST + ["--uri", f"amqp://guest:guest@127.0.0.1:{port}", "-s", "1000", "-c", "200",
                          "-q", "400", "-A", "20", "-z", WARM_UP + seconds, "-u", "bench", "-ad", "true"]
    if rate:
        command += ["-r", rate]
    output = subprocess.run(pinned(core, command), stdin=subprocess.DEVNULL,
                            capture_output=True, text=True)
    text = output.stdout
    Path(log).write_text(text + output.stderr)
    total = re.search(r"receiving rate avg: (\d+) msg/s", text)
    steady = [found for found in INTERVAL.finditer(text) if float(found[1]) > WARM_UP + 0.5]
    if output.returncode or not total or not steady:
        sys.exit(f"PerfTest failed ({output.returncode}): {(text + output.stderr)[-2000:]}")

    def latency(values, unit, quantile):
        return median([float(found[values].split("/")[quantile])
                       * (1000 if found[unit] == "ms" else 1) for found in steady])

    return {"sent": median([int(found[2]) for found in steady]),
            "received": median([int(found[3]) for found in steady]),
            "messages": int(total[1]) * (WARM_UP + seconds),
            "p50": latency(4, 5, 1), "p99": latency(4, 5, 4),
            "confirm_p50": latency(6, 7, 1), "confirm_p99": latency(6, 7, 4)}


def connect_publish_close(port, count, per_second):
    """Short connections at a fixed rate; milliseconds for each, from connect to close-ok."""

    def frame(method):
        return struct.pack("!BHI", 1, method[0], len(method[1])) + method[1] + b"\xce"

    def short(text):
        return struct.pack("!B", len(text)) + text

    auth = b"\0guest\0guest"
    start_ok = struct.pack("!HHI", 10, 11, 0) + short(b"PLAIN") + struct.pack("!I", len(auth)) + auth \
        + short(b"en_US")
    tune_ok = struct.pack("!HHHIH", 10, 31, 2047, 131072, 0)
    opened = struct.pack("!HH", 10, 40) + short(b"/") + short(b"") + b"\0"
    body = b"x" * 1000
    publish = struct.pack("!HHH", 60, 40, 0) + short(b"amq.fanout") + short(b"") + b"\0"
    header = struct.pack("!HHQH", 60, 0, len(body), 0)
    content = frame((1, publish)) + struct.pack("!BHI", 2, 1, len(header)) + header + b"\xce" \
        + struct.pack("!BHI", 3, 1, len(body)) + body + b"\xce"
    close = struct.pack("!HHH", 10, 50, 200) + short(b"") + struct.pack("!HH", 0, 0)
    took = []
    begin = time.perf_counter()
    for number in range(count):
        time.sleep(max(0, begin + number / per_second - time.perf_counter()))
        at = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = link.makefile("rb")

            def until(method):
                while True:
                    _, _, size = struct.unpack("!BHI", stream.read(7))
                    payload = stream.read(size + 1)
                    if struct.unpack("!HH", payload[:4]) == method:
                        return

            link.sendall(b"AMQP\0\0\x09\x01")
            until((10, 10))
            link.sendall(frame((0, start_ok)))
            until((10, 30))
            link.sendall(frame((0, tune_ok)) + frame((0, opened)))
            until((10, 41))
            link.sendall(frame((1, struct.pack("!HH", 20, 10) + short(b""))))
            until((20, 11))
            link.sendall(content + frame((0, close)))
            until((10, 51))
        took.append((time.perf_counter() - at) * 1000)
    return {"p50": statistics.median(took), "p99": sorted(took)[int(len(took) * 0.99)]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", required=True, help="the flowtap-agent to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=15, help="measured of each run, after the warm-up")
    parser.add_argument("--broker", default="3.10", choices=["3.10", "4.0"])
    parser.add_argument("--json", default="target/bench/perftest.json")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("the benchmark needs two cores")
    here, there = cores[0], cores[1]

    folder = tempfile.TemporaryDirectory(prefix="flowtap-bench-")
    at = Path(folder.name)
    config = at / "agent.toml"
    config.write_text(
        f'service = "bench"\nstore = "file://{at}/store"\n[spool]\npath = "{at}/spool"\n'
        f'[admin]\nlisten = "127.0.0.1:{ADMIN}"\n[[tap]]\nkind = "amqp"\n'
        f'listen = "127.0.0.1:{SIDECAR}"\nbroker = "amqp://127.0.0.1:{BROKER}"\n')
    started = []
    try:
        broker = Child(pinned(here, [ROOT / "scripts/rabbitmq.sh", at / "broker", BROKER, options.broker]),
                       at / "broker.log")
        started.append(broker)
        await_port(BROKER, broker)
        agent = Child(pinned(there, [options.agent, "--config", config]), at / "agent.log")
        started.append(agent)
        await_port(SIDECAR, agent)
        haproxy = at / "haproxy.cfg"
        haproxy.write_text(
            "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n"
            "  timeout server 1m\nlisten amqp\n"
            f"  bind 127.0.0.1:{HAPROXY}\n  server broker 127.0.0.1:{BROKER}\n")
        peer = Child(pinned(there, ["haproxy", "-f", haproxy]), at / "haproxy.log")
        started.append(peer)
        await_port(HAPROXY, peer)
        result = measure(options, here, at, broker, agent)
        agent.end()
        print("counting instructions", flush=True)
        result["summary"]["agent_instructions_per_message"] = \
            instructions_per_message(options, config, here, there, at)
    finally:
        for child in reversed(started):
            child.end()
    show(options, result["summary"])
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    Path(options.json).write_text(json.dumps(result, indent=2))
    print(f"\n{options.json} has every run.")


def measure(options, core, at, broker, agent):
    kinds = {"direct": BROKER, "control": BROKER, "haproxy": HAPROXY, "sidecar": SIDECAR}

    def run(kind, rate, number):
        before = cpu_seconds(agent.pid), cpu_seconds(broker.pid)
        did = perftest(kinds[kind], options.seconds, rate, core, at / f"{kind}-{number}.log")
        messages = max(1, did["messages"])
        did["agent_us"] = (cpu_seconds(agent.pid) - before[0]) * 1e6 / messages
        did["broker_us"] = (cpu_seconds(broker.pid) - before[1]) * 1e6 / messages
        return did

    def rounds(rate, name):
        all_runs = []
        order = list(kinds)
        for number in range(options.rounds):
            this = {}
            for kind in order[number % 4:] + order[:number % 4]:
                this[kind] = run(kind, rate, number)
                print(f"  {name} round {number + 1}/{options.rounds} {kind:8}"
                      f" {this[kind]['received']:>7.0f} msg/s  p50 {this[kind]['p50']:>6.0f} us"
                      f"  p99 {this[kind]['p99']:>6.0f} us",
                      flush=True)
            all_runs.append(this)
        return all_runs

    print("warming up", flush=True)
    for kind in ("direct", "sidecar"):
        perftest(kinds[kind], 1, None, core, at / "warm.log")
    full = rounds(None, "saturation")
    half_rate = int(median([r["direct"]["received"] for r in full]) / 2)
    half = rounds(half_rate, f"at {half_rate}/s")
    short = []
    for number in range(options.rounds):
        this = {kind: connect_publish_close(port, 300, 100) for kind, port in kinds.items()}
        short.append(this)
    peak = peak_kib(agent.pid)

    def ratio(runs, kind):
        return median([r[kind]["received"] / r["direct"]["received"] for r in runs])

    def added(runs, kind, what):
        return median([r[kind][what] - r["direct"][what] for r in runs
                       if r[kind][what] is not None and r["direct"][what] is not None])

    def spread(runs, what):
        return max((abs(r["control"][what] - r["direct"][what]) for r in runs
                    if r["control"][what] is not None and r["direct"][what] is not None), default=None)

    summary = {
        "throughput_ratio": ratio(full, "sidecar"), "throughput_ratio_control": ratio(full, "control"),
        "throughput_ratio_haproxy": ratio(full, "haproxy"),
        "direct_per_s": median([r["direct"]["received"] for r in full]),
        "sidecar_per_s": median([r["sidecar"]["received"] for r in full]),
        "agent_us_per_message": median([r["sidecar"]["agent_us"] for r in full]),
        "broker_us_per_message": median([r["direct"]["broker_us"] for r in full]),
        "broker_us_per_message_with_sidecar": median([r["sidecar"]["broker_us"] for r in full]),
        "half_rate": half_rate,
        **{f"half_{what}_{name}": value for what in ("p50", "p99", "confirm_p50", "confirm_p99")
           for name, value in (("direct", median([r["direct"][what] for r in half])),
                               ("added", added(half, "sidecar", what)),
                               ("added_control", added(half, "control", what)),
                               ("added_haproxy", added(half, "haproxy", what)),
                               ("noise_max", spread(half, what)))},
        "half_agent_us_per_message": median([r["sidecar"]["agent_us"] for r in half]),
        "short_direct_ms": median([r["direct"]["p50"] for r in short]),
        "short_added_ms": added(short, "sidecar", "p50"),
        "short_added_ms_control": added(short, "control", "p50"),
        "short_added_ms_haproxy": added(short, "haproxy", "p50"),
        "short_added_p99_ms": added(short, "sidecar", "p99"),
        "agent_peak_rss_kib": peak,
    }

    return {"summary": summary, "saturation": full, "half": half, "short": short,
            "broker": options.broker, "rounds": options.rounds, "seconds": options.seconds}


def show(options, s):
    def of(value, unit="", digits=0):
        return "n/a" if value is None else f"{value:.{digits}f}{unit}"

    def line(name, sidecar, haproxy="", control="", note=""):
        print(f"{name:<36}{sidecar:>12}{haproxy:>12}{control:>12}   {note}".rstrip())

    def added(what, note=""):
        line(f"  p{what[-2:]} publish to {'confirm' if 'confirm' in what else 'delivery'}",
             *(of(s[f"half_{what}_added{kind}"], " us") for kind in ("", "_haproxy", "_control")), note)

    print(f"\nRabbitMQ {options.broker}, 1 kB, confirms, manual acks; medians of {options.rounds} rounds"
          f" of {options.seconds} s")
    line("", "sidecar", "haproxy", "A/A", "aim")
    line("throughput at saturation, to direct", *(of(s[f"throughput_ratio{kind}"], digits=3)
         for kind in ("", "_haproxy", "_control")), f">= 0.97 (direct {s['direct_per_s']:.0f}/s)")
    line(f"added at half of that, {s['half_rate']}/s", "")
    added("p50", f"(direct {of(s['half_p50_direct'], ' us')})")
    added("p99", f"noise (max {of(s['half_p99_noise_max'], ' us')}) + 150 us")
    added("confirm_p50", f"(direct {of(s['half_confirm_p50_direct'], ' us')})")
    added("confirm_p99")
    line("connect, publish, close, 100/s, added", *(of(s[f"short_added_ms{kind}"], " ms", 2)
         for kind in ("", "_haproxy", "_control")), f"(direct {of(s['short_direct_ms'], ' ms', 2)})")
    line("agent CPU a message", of(s["agent_us_per_message"], " us", 1), note=
         f"at half {of(s['half_agent_us_per_message'], ' us', 1)}")
    line("agent instructions a message", of(s["agent_instructions_per_message"]))
    line("broker CPU a message", of(s["broker_us_per_message_with_sidecar"], " us", 1),
         note=f"direct {of(s['broker_us_per_message'], ' us', 1)}")
    line("agent's peak memory", of(s["agent_peak_rss_kib"] / 1024, " MiB", 1), note="< 64 MiB")


main()
