"""Reads the table `history` as others do, again and again, until it is killed.

Usage: read_history.py FOLDER. Prints one JSON line a round: what each reader counts and adds up.
"""

import json
import sys

import duckdb
import polars
from deltalake import DeltaTable, QueryBuilder

SUMS = "count(*) AS n, sum(seq) AS seq, sum(size) AS size, count(DISTINCT event_id) AS events"


def with_deltalake(folder):
    table = DeltaTable(folder)
    rows = QueryBuilder().register("history", table).execute(f"SELECT {SUMS} FROM history").read_all()
    return {name: rows.column(name)[0].as_py() for name in ("n", "seq", "size", "events")}


def with_polars(folder):
    history = polars.scan_delta(folder)
    sums = history.select(
        n=polars.len(),
        seq=polars.col("seq").sum(),
        size=polars.col("size").sum(),
        events=polars.col("event_id").drop_nulls().n_unique(),
    )
    return sums.collect().to_dicts()[0]


def with_duckdb(folder):
    # Its Delta extension is a download of its own: it gets the snapshot's list of files.
    files = DeltaTable(folder).file_uris()
    query = f"SELECT {SUMS} FROM read_parquet(?, hive_partitioning = true)"
    row = duckdb.execute(query, [files]).fetchone()
    return {name: int(value) for name, value in zip(("n", "seq", "size", "events"), row)}


def main():
    folder = sys.argv[1]
    while True:
        readers = {"deltalake": with_deltalake, "polars": with_polars, "duckdb": with_duckdb}
        answers = {name: read(folder) for name, read in readers.items()}
        protocol = DeltaTable(folder).protocol()
        answers["protocol"] = [protocol.min_reader_version, protocol.min_writer_version]
        print(json.dumps(answers), flush=True)


main()
