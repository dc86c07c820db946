"""The faults of the demo, as the Python services suffer them. A service of your own has no such file.
The control page writes what is switched on into one small file, which is read again when it changes."""

import json
import os
import time

_changed, _state = None, None


def state():
    global _changed, _state
    changed = os.stat(os.environ["FAULTS"]).st_mtime_ns
    if changed != _changed:
        with open(os.environ["FAULTS"]) as file:
            _changed, _state = changed, json.load(file)
    return _state


def find(name, order):
    """The fault of this name if it is switched on and hits this order here."""
    fault = state()["faults"].get(name)
    if not fault or fault["service"] != os.environ["SERVICE"]:
        return None
    return fault if not fault["orders"] or order["order_id"] in fault["orders"] else None


def hurry():
    return state()["hurry"]


def strike(channel, tag, order):
    """True: the message is dealt with, the service shall not touch it."""
    wait_while("hangs", channel, order)
    wait_while("slow", channel, order)
    if find("dies", order):
        os._exit(137)
    if find("poison", order):
        raise ValueError("this order can't be read")
    if find("rejects", order):
        channel.basic_reject(tag, requeue=False)
        return True
    if find("forgets", order):
        channel.basic_ack(tag)
        return True
    return False


def strike_record(car, pause):
    """The same for a record of a topic: the name of the fault that dealt with it."""
    for name in ("hangs", "slow"):
        started = time.monotonic()
        while (fault := find(name, car)) and time.monotonic() - started < fault.get("seconds", float("inf")):
            if not pause():
                return name
    if find("dies", car):
        os._exit(137)
    if find("poison", car):
        raise ValueError("this car can't be read")
    return next((name for name in ("rejects", "forgets") if find(name, car)), None)


def wait_while(name, channel, order):
    started = time.monotonic()
    while fault := find(name, order):
        if time.monotonic() - started >= fault.get("seconds", float("inf")):
            break
        channel.connection.sleep(0.1)  # heartbeats go on
