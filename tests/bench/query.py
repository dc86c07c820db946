#!/usr/bin/env python3
"""make bench-query: how long `why` and `flows` take over a million rows. Prints p50 and p95.

Asks a running `flowtap serve` over HTTP, each time for another id, and `flowtap why --store`, which
answers without a server. --flowtap and --fill name the binaries (tests/bench/query.sh builds them).
"""

import argparse
import json
import os
import random
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url):
    start = time.perf_counter()
    with urllib.request.urlopen(url, timeout=120) as answer:
        body = answer.read()
    return time.perf_counter() - start, json.loads(body)


def report(name, seconds):
    seconds = sorted(seconds)
    at = lambda q: seconds[min(len(seconds) - 1, int(len(seconds) * q))] * 1000
    print(f"{name:44} p50 {at(0.50):8.1f} ms   p95 {at(0.95):8.1f} ms   max {seconds[-1] * 1000:8.1f} ms   n={len(seconds)}")


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--flowtap", required=True)
    args.add_argument("--fill", required=True)
    args.add_argument("--rows", type=int, default=1_000_000)
    args.add_argument("--runs", type=int, default=50)
    args = args.parse_args()
    random.seed(4)
    with tempfile.TemporaryDirectory(prefix="flowtap-bench-") as folder:
        said = subprocess.run([args.fill, folder, str(args.rows)], check=True, capture_output=True, text=True).stdout
        orders = int(said.split()[0])
        print(f"{said.strip()}, {os.cpu_count()} cores")
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        start = time.perf_counter()
        server = subprocess.Popen([args.flowtap, "serve", "--store", folder, "--listen", f"127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    _, list_ = get(f"{url}/api/v1/flows?limit=1")
                    break
                except OSError:
                    time.sleep(0.02)
            print(f"first answer {time.perf_counter() - start:.2f} s after the start of the server")
            order = lambda: f"order-{random.randrange(orders)}"
            why = lambda id: f"{url}/api/v1/why?id={urllib.parse.quote(id)}"
            took = []
            for _ in range(args.runs):
                seconds, answer = get(why(order()))
                assert answer["found"] == "flow" and answer["flow"]["messages"], answer
                took.append(seconds)
            report("why ORDER (another order each time)", took)
            report("why of a customer (in some 30 flows)", [get(why(f"customer-{random.randrange(997)}"))[0] for _ in range(args.runs)])
            report("flows, the newest 50", [get(f"{url}/api/v1/flows")[0] for _ in range(args.runs)])
            took, cursor = [], ""
            for _ in range(args.runs):
                seconds, page = get(f"{url}/api/v1/flows?cursor={cursor}")
                cursor = page["next"] or ""
                took.append(seconds)
            report("flows, page after page", took)
            took, broken = [], 0
            for _ in range(args.runs):
                seconds, page = get(f"{url}/api/v1/flows?state=broken")
                broken = len(page["flows"])
                took.append(seconds)
            report(f"flows?state=broken ({broken} found)", took)
            report("flows?key=ORDER", [get(f"{url}/api/v1/flows?key={order()}")[0] for _ in range(args.runs)])
            report("map", [get(f"{url}/api/v1/map")[0] for _ in range(args.runs)])
            peak = [line for line in open(f"/proc/{server.pid}/status") if line.startswith("VmHWM")]
            print(f"memory of the server at most {int(peak[0].split()[1]) // 1024} MiB")
        finally:
            server.terminate()
            server.wait()
        took = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([args.flowtap, "why", order(), "--store", folder], stdout=subprocess.DEVNULL, check=False)
            took.append(time.perf_counter() - start)
        report("flowtap why --store, without a server", took)


if __name__ == "__main__":
    main()
