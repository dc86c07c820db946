"""Kafka's own performance tools, direct and through a sidecar.

Each round goes once over each way: "direct" and "control" (direct again: what the two differ by is
the noise), "sidecar" (records everything), "forward" (`record = false`), and "kafka-proxy"
(grepplabs/kafka-proxy, which records nothing) where its program is given. Broker and tools share one
core, the hop has another. Records of 1 kB, acks = all, one partition.

At full speed records are produced first, and consumed when the hop is idle again: what it still has to
decode belongs to the producing. Then a consumer follows the producer while it works, at half of the rate
that the slower of the two reaches direct so. Its rate is the producer's if it keeps up, and how long it
needs after the producer's end is what it has fallen behind.

Only the standard library; prints a table and writes JSON.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import CACHE, ROOT, Child, cpu_seconds, median, peak_kib, pinned

BROKER, SIDECAR, FORWARD, PROXY, ADMIN = 26801, 26811, 26831, 26851, 26871
TOOLS = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{CACHE}/kafka-4/libs/*"]
SIZE = 1000
# Seconds of CPU within one second that nobody works for: ticks, statuses.
IDLE = 0.03


def await_port(port, child):
    for _ in range(600):
        if child.process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nobody listens on port {port}: {Path(child.log.name).read_text()[-2000:]}")


def tool(name, arguments, core, log):
    command = TOOLS + [f"org.apache.kafka.tools.{name}"] + [str(word) for word in arguments]
    done = subprocess.run(pinned(core, command), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    Path(log).write_text(done.stdout + done.stderr)
    if done.returncode:
        sys.exit(f"{name} failed ({done.returncode}): {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def await_idle(hop):
    """What is recorded may be decoded and written after the tool has ended: waits for all of it."""
    before = cpu_seconds(hop)
    for _ in range(120):
        time.sleep(1)
        now = cpu_seconds(hop)
        if now - before <= IDLE:
            return now
        before = now
    sys.exit(f"process {hop} does not come to rest")


def produce(port, topic, records, rate, core, log):
    """Records a second, and milliseconds from send to acknowledgement."""
    text = tool("ProducerPerformance", [
        "--topic", topic, "--num-records", records, "--record-size", SIZE, "--throughput", rate,
        "--bootstrap-server", f"127.0.0.1:{port}", "--command-property", "acks=all"], core, log)
    last = text.strip().splitlines()[-1]
    found = re.search(r"([\d.]+) records/sec.*?([\d.]+) ms avg latency.*?(\d+) ms 50th.*?(\d+) ms 99th", last)
    if not found:
        sys.exit(f"ProducerPerformance says nothing that is known: {last}")
    return {"per_s": float(found[1]), "mean_ms": float(found[2]), "p50_ms": int(found[3]),
            "p99_ms": int(found[4])}


def consume(port, topic, records, core, log):
    """Records a second while fetching, without the time that the group takes to form."""
    text = tool("ConsumerPerformance", [
        "--topic", topic, "--num-records", records, "--timeout", 60000, "--group", f"g-{time.time_ns()}",
        "--bootstrap-server", f"127.0.0.1:{port}"], core, log)
    names, values = [[cell.strip() for cell in line.split(",")] for line in text.strip().splitlines()[-2:]]
    said = dict(zip(names, values))
    return {"per_s": float(said["fetch.nMsg.sec"]), "records": int(said["data.consumed.in.nMsg"])}


def hops(options, at, core):
    """The ways, each with its port and the process that is the hop."""
    config = at / "agent.toml"
    config.write_text(
        f'service = "bench"\nstore = "file://{at}/store"\n[spool]\npath = "{at}/spool"\n'
        f'[admin]\nlisten = "127.0.0.1:{ADMIN}"\n[[tap]]\nkind = "kafka"\n'
        f'listen = "127.0.0.1:{SIDECAR}"\nbroker = "127.0.0.1:{BROKER}"\n'
        f'ports = "{SIDECAR + 1}-{SIDECAR + 9}"\n')
    forward = at / "forward.toml"
    forward.write_text(
        config.read_text().replace("/store", "/store2").replace("/spool", "/spool2")
        .replace(str(SIDECAR), str(FORWARD)).replace(str(SIDECAR + 1), str(FORWARD + 1))
        .replace(str(SIDECAR + 9), str(FORWARD + 9)).replace(str(ADMIN), str(ADMIN + 1))
        + "record = false\n")
    started = {
        "sidecar": (SIDECAR, Child(pinned(core, [options.agent, "--config", config]), at / "agent.log")),
        "forward": (FORWARD, Child(pinned(core, [options.agent, "--config", forward]), at / "forward.log")),
    }
    if options.kafka_proxy:
        started["kafka-proxy"] = (PROXY, Child(pinned(core, [
            options.kafka_proxy, "server", "--bootstrap-server-mapping",
            f"127.0.0.1:{BROKER},127.0.0.1:{PROXY}", "--dynamic-listeners-disable=false",
            "--http-disable"]), at / "proxy.log"))
    else:
        print("kafka-proxy is not given (--kafka-proxy PROGRAM): not measured", flush=True)
    return started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", required=True, help="the flowtap-agent to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=500_000, help="of 1 kB, each run")
    parser.add_argument("--kafka-proxy", metavar="PROGRAM",
                        help="the program of grepplabs/kafka-proxy, to compare with")
    parser.add_argument("--json", default="target/bench/kafka.json")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("the benchmark needs two cores")
    here, there = cores[0], cores[1]
    folder = tempfile.TemporaryDirectory(prefix="flowtap-bench-")
    at = Path(folder.name)
    started = []
    try:
        script = ["env", f"FLOWTAP_CACHE={CACHE}", ROOT / "scripts/kafka.sh", at / "broker", BROKER]
        broker = Child(pinned(here, script), at / "broker.log")
        started.append(broker)
        await_port(BROKER, broker)
        ways = hops(options, at, there)
        started += [child for _, child in ways.values()]
        for port, child in ways.values():
            await_port(port, child)
        result = measure(options, here, at, ways)
    finally:
        for child in reversed(started):
            child.end()
    show(result["summary"])
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    Path(options.json).write_text(json.dumps(result, indent=2))
    print(f"\n{options.json} has every run.")


def measure(options, core, at, ways):
    ports = {"direct": BROKER, "control": BROKER, **{name: port for name, (port, _) in ways.items()}}
    order = list(ports)

    def full(way, number):
        topic, hop = f"full-{way}-{number}", ways[way][1].pid if way in ways else None
        did, cpu = {}, [cpu_seconds(hop) if hop else 0]
        did["produce"] = produce(ports[way], topic, options.records, -1, core, at / f"{topic}.log")
        cpu.append(await_idle(hop) if hop else 0)
        did["consume"] = consume(ports[way], topic, options.records, core, at / f"{topic}-c.log")
        cpu.append(await_idle(hop) if hop else 0)
        if hop:
            for what, spent in zip(("produce", "consume"), (cpu[1] - cpu[0], cpu[2] - cpu[1])):
                did[what]["cpu_us"] = spent * 1e6 / options.records
        return did

    def both(way, number, rate):
        topic, hop = f"both-{way}-{number}-{rate}", ways[way][1].pid if way in ways else None
        records = min(options.records, rate * 15) if rate > 0 else options.records
        before = cpu_seconds(hop) if hop else 0
        # It makes the topic, so that the consumer finds it.
        produce(ports[way], topic, 1, -1, core, at / f"{topic}.log")
        with ThreadPoolExecutor() as pool:
            reader = pool.submit(consume, ports[way], topic, records + 1, core, at / f"{topic}-c.log")
            did = {"produce": produce(ports[way], topic, records, rate, core, at / f"{topic}.log")}
            ended = time.monotonic()
            did["consume"] = reader.result()
            did["consume"]["behind_ms"] = (time.monotonic() - ended) * 1000
        if hop:
            did["cpu_us"] = (await_idle(hop) - before) * 1e6 / records
        return did

    def run(way, number, rate):
        did = both(way, number, rate) if rate else full(way, number)
        name = "full" if not rate else "knee" if rate < 0 else "half"
        print(f"  round {number + 1}/{options.rounds} {name} {way:11}"
              f" produce {did['produce']['per_s']:>8.0f}/s p50 {did['produce']['p50_ms']} ms"
              f" p99 {did['produce']['p99_ms']} ms   consume {did['consume']['per_s']:>8.0f}/s", flush=True)
        return did

    print("warming up", flush=True)
    for way in order:
        warm = f"warm-{way}"
        produce(ports[way], warm, 20_000, -1, core, at / "warm.log")
        consume(ports[way], warm, 20_000, core, at / "warm.log")

    def rounds(rate):
        turned = [order[number % len(order):] + order[:number % len(order)] for number in range(options.rounds)]
        return [{way: run(way, number, rate) for way in ways_now} for number, ways_now in enumerate(turned)]

    fast = rounds(None)
    together = [run("direct", number, -1) for number in range(options.rounds)]
    knee = median([min(this[what]["per_s"] for what in ("produce", "consume")) for this in together])
    half_rate = int(knee / 2)
    slow = rounds(half_rate)
    summary = {"direct_per_s": {what: median([this["direct"][what]["per_s"] for this in fast])
                                for what in ("produce", "consume")},
               "knee": knee, "half_rate": half_rate, "ways": {}}
    for way in order[1:]:
        said = {}
        for what in ("produce", "consume"):
            for name, runs in ((f"{what}_ratio", fast), (f"half_{what}_ratio", slow)):
                said[name] = median([this[way][what]["per_s"] / this["direct"][what]["per_s"] for this in runs])
            if way in ways:
                said[f"{what}_cpu_us"] = median([this[way][what]["cpu_us"] for this in fast])
        for quantile in ("mean_ms", "p99_ms"):
            said[f"half_added_{quantile}"] = median(
                [this[way]["produce"][quantile] - this["direct"]["produce"][quantile] for this in slow])
        said["half_added_behind_ms"] = median(
            [this[way]["consume"]["behind_ms"] - this["direct"]["consume"]["behind_ms"] for this in slow])
        if way in ways:
            said["half_cpu_us"] = median([this[way]["cpu_us"] for this in slow])
            said["peak_mib"] = peak_kib(ways[way][1].pid) / 1024
        summary["ways"][way] = said
    return {"summary": summary, "full": fast, "half": slow}


def show(summary):
    print(f"\ndirect: produced {summary['direct_per_s']['produce']:.0f}/s, consumed"
          f" {summary['direct_per_s']['consume']:.0f}/s, both at once {summary['knee']:.0f}/s;"
          f" half of that is {summary['half_rate']}/s")
    names = list(summary["ways"])
    print(f"{'':36}" + "".join(f"{name:>13}" for name in names))
    rows = [("produced, to direct", "produce_ratio", "{:.3f}"), ("consumed, to direct", "consume_ratio", "{:.3f}"),
            ("produced at half the rate, to direct", "half_produce_ratio", "{:.3f}"),
            ("consumed beside it, to direct", "half_consume_ratio", "{:.3f}"),
            ("added to how far it fell behind, ms", "half_added_behind_ms", "{:.0f}"),
            ("added to send-to-ack then, mean ms", "half_added_mean_ms", "{:.2f}"),
            ("added to send-to-ack then, p99 ms", "half_added_p99_ms", "{:.1f}"),
            ("CPU of the hop, us a record produced", "produce_cpu_us", "{:.2f}"),
            ("CPU of the hop, us a record consumed", "consume_cpu_us", "{:.2f}"),
            ("CPU at half the rate, us a record", "half_cpu_us", "{:.2f}"),
            ("peak memory, MiB", "peak_mib", "{:.1f}")]
    for title, key, form in rows:
        cells = [form.format(summary["ways"][name][key]) if key in summary["ways"][name] else "" for name in names]
        print(f"{title:36}" + "".join(f"{cell:>13}" for cell in cells))
    print("a record is 1 kB: microseconds a record are milliseconds a megabyte")
    if "kafka-proxy" in names:
        proxy = summary["ways"]["kafka-proxy"]
        for name in ("forward", "sidecar"):
            said = summary["ways"][name]
            print(f"{name}: CPU of kafka-proxy's produced x"
                  f" {said['produce_cpu_us'] / proxy['produce_cpu_us']:.2f}, consumed x"
                  f" {said['consume_cpu_us'] / proxy['consume_cpu_us']:.2f}")


if __name__ == "__main__":
    main()
