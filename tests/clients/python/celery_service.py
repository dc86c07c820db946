"""A service with Celery. Roles:

produce   sends one task for each verb of `plan`, with publisher confirms; prints `published`
work      a worker; ends on SIGTERM; prints what its tasks did

A task does what its verb says: `ok`; `retry` (fails twice, by Celery's own retry, which publishes
the task anew); `fail` (an exception: acked all the same); `reject`, `requeue` (Celery's Reject,
requeue once and then ok).
"""

import json
import signal
import sys
import threading
from collections import Counter

from celery import Celery, signals
from celery.exceptions import Reject


def say(**what):
    print(json.dumps(what), flush=True)


scenario = json.loads(sys.argv[1])
app = Celery("orders", broker=scenario["url"])
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=False,
    task_acks_late=True, task_ignore_result=True, task_default_queue="orders",
    worker_enable_remote_control=False, worker_send_task_events=False,
    worker_prefetch_multiplier=4, worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)
did = Counter(runs=0, acked=0, rejected=0, requeued=0, retried=0)


@app.task(bind=True, name="orders.handle", max_retries=2)
def handle(self, order, verb):
    did["runs"] += 1
    redelivered = self.request.delivery_info["redelivered"]
    if verb == "reject":
        did["rejected"] += 1
        raise Reject("refused", requeue=False)
    if verb == "requeue" and not redelivered:
        did["requeued"] += 1
        raise Reject("later", requeue=True)
    did["acked"] += 1
    if verb == "retry" and self.request.retries < 2:
        did["retried"] += 1
        raise self.retry(countdown=0)
    if verb == "fail":
        raise ValueError(f"cannot handle {order}")


def produce():
    for i, verb in enumerate(scenario["plan"]):
        handle.apply_async(args=[f"order-{i}", verb], task_id=f"task-{i}")
    say(published=len(scenario["plan"]))


def work():
    @signals.worker_ready.connect
    def ready(**_):
        say(ready=True)
        wanted = scenario["runs"]

        # The worker has no hook for "all done": it is asked to end like any other service.
        def watch():
            while did["runs"] < wanted:
                pause.wait(0.02)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        pause = threading.Event()
        threading.Thread(target=watch, daemon=True).start()

    try:
        app.worker_main(["worker", "--pool=solo", "--without-gossip", "--without-mingle",
                         "--without-heartbeat", "--loglevel=WARNING"])
    except SystemExit:
        pass
    say(**did)


{"produce": produce, "work": work}[scenario["role"]]()
