"""The table on a real S3 server: what moving rows into it, keeping and asking it costs.

Rows of ten million orders' messages, spread over days, lie in the inbox of a store. `flowtap ingest` and
`flowtap compact` move them, through a meter that counts requests and bytes. Then an order is looked up
in a `flowtap serve` that was just started, and again, with the meter as slow as S3 (a GET takes 30 ms,
one in a hundred 150): requests, and how many of them depended on one another. At last the same
questions in SQL go to DuckDB, on the same files.

Prints a table and writes JSON.
"""

import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import duckdb
from deltalake import DeltaTable

from common import CACHE, Child, median

GATEWAY, METER, SLOW, SERVE = 26901, 26902, 26903, 26904
KEY, SECRET = "flowtap-bench", "flowtap-bench-secret"
# What a lookup reads; that the server looks at the store now and then is not its doing.
ROWS = ("bench/history/day=", "bench/derived/", "bench/inbox/")


def ask(url, method="GET"):
    begun = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=600) as answer:
        return time.perf_counter() - begun, json.loads(answer.read() or b"null")


def await_answer(url, child):
    for _ in range(36_000):
        if child.process.poll() is not None:
            break
        try:
            return ask(url)
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing answers at {url}: {Path(child.log.name).read_text()[-2000:]}")


class Flowtap:
    """The program, on the bucket behind a port, or on its folder."""

    def __init__(self, program, store, port=None):
        self.program, self.store = program, store
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWTAP_")}
        if port:
            self.env |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1",
                         "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true"}

    def run(self, command, *arguments, codes=(0,)):
        """Wall time and CPU in seconds, and what it said."""
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        words = [self.program, command, "--store", self.store, *arguments]
        done = subprocess.run(words, env=self.env, stdin=subprocess.DEVNULL, capture_output=True)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode not in codes:
            sys.exit(f"flowtap {command} failed ({done.returncode}): {done.stderr.decode()[-2000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return wall, cpu, done.stdout

    def serve(self, log, *arguments):
        words = [self.program, "serve", "--store", self.store, "--no-ingest", "--listen",
                 f"127.0.0.1:{SERVE}", *arguments]
        return Child(words, log, self.env)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flowtap", required=True, help="the flowtap to measure")
    parser.add_argument("--fill", required=True, help="the example of that name")
    parser.add_argument("--s3meter", required=True, help="the example of that name")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--runs", type=int, default=9, help="of each question")
    parser.add_argument("--json", default="target/bench/storage.json")
    options = parser.parse_args()
    random.seed(6)
    folder = tempfile.TemporaryDirectory(prefix="flowtap-bench-")
    at = Path(folder.name)
    started = []
    try:
        result = measure(options, at, started)
    finally:
        for child in reversed(started):
            child.end()
        folder.cleanup()
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    Path(options.json).write_text(json.dumps(result, indent=2))
    print(f"\n{options.json} has all of it.")


def measure(options, at, started):
    store = at / "data/flowtap/bench"
    store.mkdir(parents=True)
    said = subprocess.run([options.fill, store, str(options.rows), f"days={options.days}"], check=True,
                          capture_output=True, text=True).stdout.strip()
    orders, rows = (int(word.split()[0]) for word in said.split(","))
    print(f"{said}, {options.days} days, {os.cpu_count()} cores", flush=True)
    gateway = Child([CACHE / "bin/versitygw", "--port", f"127.0.0.1:{GATEWAY}", "posix", at / "data"],
                    at / "gateway.log", os.environ | {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET})
    started.append(gateway)
    for port, slow in ((METER, []), (SLOW, ["--delay"])):
        started.append(Child([options.s3meter, str(port), str(GATEWAY), *slow], at / f"meter-{port}.log"))
        await_answer(f"http://127.0.0.1:{port}/-/requests", started[-1])
    result = {"rows": rows, "orders": orders, "days": options.days}
    result["moving"] = moving(options, store, rows)
    result["asking"] = asking(options, at, orders, started)
    result["duckdb"] = beside_duckdb(options, store, orders)
    return result


def local(store):
    """The table's files, as a reader that is not Flowtap finds them."""
    return [urllib.parse.urlparse(path).path or path for path in DeltaTable(str(store / "history")).file_uris()]


def rounds(requests):
    """As many of them as followed each other at least."""
    number, until = 0, None
    for it in sorted(requests, key=lambda it: it["ended_us"]):
        if until is None or it["begun_us"] >= until:
            number, until = number + 1, it["ended_us"]
    return number


def show(name, value, unit=""):
    print(f"  {name:58} {value} {unit}".rstrip(), flush=True)


def moving(options, store, rows):
    """From the inbox into large files."""
    inbox = sum(path.stat().st_size for path in store.rglob("inbox/**/*.parquet"))
    flowtap = Flowtap(options.flowtap, "s3://flowtap/bench", METER)
    meter = f"http://127.0.0.1:{METER}/-"
    ask(f"{meter}/reset", "POST")
    ingest = flowtap.run("ingest", "--once", "--grace", "1s")
    compact = flowtap.run("compact")
    count = ask(f"{meter}/counts/bench")[1]
    files = [Path(path) for path in local(store)]
    held = sum(path.stat().st_size for path in files)
    put = [it for it in count["counts"] if it["verb"] in ("PUT", "POST")]
    # The same rows as JSON, a day of them.
    _, _, text = Flowtap(options.flowtap, str(store)).run(
        "sql", "--json", "--timeout", "5m", "SELECT * FROM history LIMIT 200000")
    lines = json.loads(text)
    plain = "\n".join(json.dumps({name: value for name, value in line.items() if value is not None},
                                 separators=(",", ":")) for line in lines).encode()
    zipped = len(gzip.compress(plain, 6)) / len(lines)
    print("moving rows into the table")
    show("inbox, bytes a row", f"{inbox / rows:.1f}")
    show("ingest, rows a second", f"{rows / ingest[0]:.0f}", f"({rows / ingest[1]:.0f} a second of CPU)")
    show("compaction, seconds", f"{compact[0]:.1f}", f"({compact[1]:.1f} of CPU)")
    written, requests = sum(it["bytes_in"] for it in put), sum(it["requests"] for it in put)
    show("puts, for a million rows", f"{requests / rows * 1e6:.1f}")
    show("bytes put, to those kept", f"{written / held:.2f}")
    show("table, files", len(files))
    show("table, bytes a row", f"{held / rows:.1f}")
    show("the same as gzipped JSON, bytes a row", f"{zipped:.1f}", f"(table / JSON {held / rows / zipped:.2f})")
    return {"inbox_bytes": inbox, "ingest_s": ingest[:2], "compact_s": compact[:2], "files": len(files),
            "held_bytes": held, "gzip_json_bytes_a_row": zipped, "counts": count["counts"]}


def asking(options, at, orders, started):
    """Requests, rounds and time of a lookup: in a server that was just started, and again."""
    flowtap = Flowtap(options.flowtap, "s3://flowtap/bench", SLOW)
    meter = f"http://127.0.0.1:{SLOW}/-"
    why = f"http://127.0.0.1:{SERVE}/api/v1/why?id="
    found = {"cold": [], "warm": [], "unknown": []}
    # Nothing is in its index: what is asked for lies in the store.
    server = flowtap.serve(at / "serve.log", "--index-bytes", "0")
    started.append(server)
    begun = time.perf_counter()
    await_answer(f"http://127.0.0.1:{SERVE}/api/v1/flows?limit=1", server)
    ready = time.perf_counter() - begun

    def lookup(kind, order):
        time.sleep(1)
        ask(f"{meter}/reset", "POST")
        took, answer = ask(why + order)
        if (kind == "unknown") != (answer["found"] == "nothing"):
            sys.exit(f"{order}: {json.dumps(answer)[:500]}")
        seen = [it for it in ask(f"{meter}/requests")[1] if it["key"].startswith(ROWS)]
        found[kind].append({"ms": took * 1000, "requests": len(seen), "rounds": rounds(seen),
                            "bytes": sum(it["bytes_out"] for it in seen)})

    for number in range(options.runs):
        order = f"order-{random.randrange(orders)}"
        lookup("cold", order)
        lookup("warm", order)
        lookup("unknown", f"order-none-{number}")
    server.end()
    started.remove(server)
    ask(f"{meter}/reset", "POST")
    alone = flowtap.run("why", f"order-{random.randrange(orders)}", codes=(0, 3, 4, 5))
    requests = len(ask(f"{meter}/requests")[1])
    print("asking, with a store as slow as S3")
    show("server, first answer after", f"{ready:.1f} s")
    for kind, all_of in found.items():
        several = {what: median([it[what] for it in all_of]) for what in all_of[0]}
        show(f"why ORDER, {kind}",
             f"{several['requests']:.0f} requests in {several['rounds']:.0f} rounds,"
             f" {several['bytes'] / 1e6:.2f} MB, {several['ms']:.0f} ms",
             f"(at most {max(it['requests'] for it in all_of)} in {max(it['rounds'] for it in all_of)})")
    show("flowtap why --store, from nothing", f"{requests} requests, {alone[0]:.1f} s")
    return {"ready_s": ready, "lookups": found, "alone_s": alone[0], "alone_requests": requests}


def beside_duckdb(options, store, orders):
    """The same questions, on the same files of the folder, best of some runs each."""
    flowtap = Flowtap(options.flowtap, str(store))
    files = local(store)
    duck = duckdb.connect(config={"threads": os.cpu_count()})
    duck.execute(f"CREATE VIEW history AS SELECT * FROM read_parquet({files!r})")
    some = flowtap.run("sql", "--json", "SELECT transaction_id AS id FROM history WHERE transaction_id IS NOT NULL LIMIT 1")
    flow = json.loads(some[2])[0]["id"]
    questions = {
        "nothing": "SELECT 1",
        "aggregate": "SELECT service, destination, outcome, count(*) AS n, sum(size) AS bytes FROM history GROUP BY 1, 2, 3",
        "lookup": f'SELECT kind, service, "at" FROM history WHERE transaction_id = \'{flow}\'',
    }
    result, baseline = {}, None
    print("beside DuckDB, on the folder")
    for name, sql in questions.items():
        ours = min(flowtap.run("sql", "--json", sql)[0] for _ in range(options.runs))
        theirs = []
        for _ in range(options.runs):
            begun = time.perf_counter()
            duck.execute(sql).fetchall()
            theirs.append(time.perf_counter() - begun)
        if name == "nothing":
            baseline = ours
        # Without the start of the process, which DuckDB does not have here.
        result[name] = {"flowtap_s": ours - (0 if name == "nothing" else baseline), "duckdb_s": min(theirs)}
        show(f"{name}: flowtap sql, DuckDB",
             f"{result[name]['flowtap_s'] * 1000:.1f} ms, {result[name]['duckdb_s'] * 1000:.1f} ms",
             f"(x{result[name]['duckdb_s'] / result[name]['flowtap_s']:.2f})")
    return result


if __name__ == "__main__":
    main()
