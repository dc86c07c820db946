"""The control page of the demo: switches faults on and off, breaks something without telling what,
lets six customers complain, and reveals the truth. It listens on loopback only.

Services learn of faults from the file FAULTS, never through the broker; what only a broker's
administrator can break (an exchange that loses its queues) is done here, past every sidecar.

  POST /faults/NAME/on?service=S&orders=order-7,order-9     orders: none = all, next = the next one
  POST /faults/NAME/off    POST /off    POST /break    POST /reveal    GET /state    GET /"""

import html
import http.server
import json
import os
import pathlib
import random
import signal
import threading
import time
import urllib.parse

import pika

RUN = pathlib.Path(os.environ["RUN"])
PORT = int(os.environ["CONTROL_PORT"])
FLOWTAP = os.environ["FLOWTAP_URL"]
CUSTOMERS = json.loads((pathlib.Path(__file__).parent / "customers.json").read_text())
# Name: (where it strikes unless told otherwise, what it does).
FAULTS = {
    "rejects": ("factory", "rejects the message; it goes to the dead-letter queue"),
    "hangs": ("shipping", "takes the message and never finishes"),
    "dies": ("billing", "is killed with the message unacknowledged, and again after each restart"),
    "forgets": ("stock", "acknowledges the message and forgets to publish what follows"),
    "no-queue": ("billing", "publishes to the exchange payments, which somebody made anew: without its queues"),
    "late-queue": ("billing", "publishes InvoiceIssued before a queue for it is bound"),
    "slow": ("factory", "takes 15 s for each message"),
    "poison": ("shipping", "fails on the message at each of three attempts; a reader of the topic for ever"),
    "aborts": ("shipping", "rolls back what it writes to the topic of cars, and goes on"),
}
CONSUMERS = ["stock", "billing", "factory", "shipping", "showroom", "delivery-desk"]
# Faults of one service only.
FIXED = ["no-queue", "late-queue", "aborts"]
# Nobody would notice: it publishes nothing that could be forgotten.
UNNOTICED = [("forgets", "showroom")]
# What customers miss.
MISSED = {"late-queue": "invoice", "showroom": "car on your web site", "delivery-desk": "delivery date"}

lock = threading.RLock()
faults, secret, tickets = {}, None, []
revealed = True


def write(path, text):
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)


def save():
    write(RUN / "faults.json", json.dumps({"hurry": False, "faults": faults}))


def next_orders(count):
    """The next orders that are not for a hovercraft: of those stock has no parts."""
    number, orders = int((RUN / "last-order").read_text()) + 1, []
    while len(orders) < count:
        number += 1
        if number % 10 != 7:
            orders.append(f"order-{number}")
    return orders


def switch_on(name, service=None, orders=()):
    with lock:
        if name in faults:
            switch_off(name)
        service = FAULTS[name][0] if name in FIXED else service or FAULTS[name][0]
        fault = {"service": service, "orders": list(orders), "at": now()}
        if name == "slow":
            fault["seconds"] = 15
        if name == "late-queue":
            fault["exchange"] = new_exchange()
        if name == "no-queue":
            with_broker(make_payments_anew)
        faults[name] = fault
        save()
        return {"fault": name, **fault}


def switch_off(name):
    with lock:
        fault = faults.pop(name, None)
        save()
        if name == "no-queue" and fault:
            with_broker(lambda channel: channel.queue_bind("factory.payments", "payments", "payment.taken"))
            listen_again()
        if name == "late-queue" and fault:
            listen_to = json.loads((RUN / "listen-to.json").read_text()) | {fault["exchange"]: "topic"}
            write(RUN / "listen-to.json", json.dumps(listen_to))
            listen_again()
        return {"fault": name, "off": now()}


def with_broker(act):
    """As an administrator would: straight to the broker."""
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER_URL"]))
    act(connection.channel())
    connection.close()


def make_payments_anew(channel):
    # Billing holds still meanwhile: a publish to an exchange that is not there closes its channel.
    billing = int((RUN / "billing.pid").read_text())
    os.kill(billing, signal.SIGSTOP)
    try:
        time.sleep(0.2)  # what it sent is with the broker
        channel.exchange_delete("payments")
        channel.exchange_declare("payments", "topic", durable=True)
    finally:
        os.kill(billing, signal.SIGCONT)


def new_exchange():
    listen_to = json.loads((RUN / "listen-to.json").read_text())
    return f"invoices.v{1 + sum(name.startswith('invoices') for name in listen_to)}"


def listen_again():
    os.kill(int((RUN / "notifications.pid").read_text()), signal.SIGHUP)


def shown():
    """What is switched on, without what nobody shall be told."""
    return {name: fault for name, fault in faults.items() if revealed or name != secret["fault"]}


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# ---- tickets -----------------------------------------------------------------------------------

def ticket(order, what="car"):
    name, pronoun = CUSTOMERS[int(order.split("-")[1]) % len(CUSTOMERS)]
    return {"order": order, "text": f"{name} paid for {order}. Where is {pronoun} {what}?"}


def break_something():
    global secret, revealed
    with lock:
        for name in list(faults):
            switch_off(name)
        name, service = random.choice([
            (name, service) for name in FAULTS
            for service in ([FAULTS[name][0]] if name in FIXED else CONSUMERS)
            if (name, service) not in UNNOTICED])
        orders = next_orders(6)
        secret, revealed = switch_on(name, service, orders), False
        tickets.clear()
    what = MISSED.get(name) or MISSED.get(service, "car")
    threading.Thread(target=complain, args=(orders, what), daemon=True).start()
    return {"broken": True, "tickets": len(orders)}


def complain(orders, what):
    """Each customer waits a while before the ticket is written."""
    for order in orders:
        while int((RUN / "last-order").read_text()) < int(order.split("-")[1]):
            time.sleep(0.2)
    time.sleep(10)
    for order in orders:
        add_ticket(ticket(order, what))


def add_ticket(one):
    tickets.append(one)
    with open(RUN / "tickets.txt", "a") as file:
        file.write(f"  {one['text']}\n      flowtap why {one['order']}\n")


def reveal():
    global revealed
    revealed = True
    if not secret:
        return {"truth": "nothing was broken in secret"}
    return {"truth": f"{secret['service']} {FAULTS[secret['fault']][1]}", **secret}


# ---- HTTP --------------------------------------------------------------------------------------

def page():
    on = shown()
    rows = "".join(f"""<tr class="{'on' if name in on else ''}"><td><b>{name}</b><td>
        <select form="{name}" name="service">{''.join(f'<option{" selected" * (it == where)}>{it}'
        for it in ([where] if name in FIXED else CONSUMERS))}</select>
        <td>{html.escape(does)}<td><form id="{name}" method="post"
        action="/faults/{name}/{'off' if name in on else 'on'}">
        <button>{'switch off' if name in on else 'switch on'}</button></form>"""
        for name, (where, does) in FAULTS.items())
    told = "".join(f"<li>{html.escape(it['text'])} <code>flowtap why {it['order']}</code>" for it in tickets)
    truth = html.escape(reveal()["truth"]) if secret and revealed else ""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Edison Cars: control</title>
<style>:root {{ color-scheme: light dark }} body {{ font: 16px/1.5 system-ui; max-width: 60rem; margin: 2rem auto }}
td {{ padding: .2rem .8rem }} tr.on {{ background: #e5484d33 }} form {{ display: inline }}</style>
<h1>Edison Cars</h1><p><a href="{FLOWTAP}">Flowtap</a></p>
<form method="post" action="/break"><button>Break something, don't tell me</button></form>
<form method="post" action="/off"><button>Repair everything</button></form>
<form method="post" action="/reveal"><button>Reveal</button></form> {truth}
<h2>Tickets</h2><ul>{told or '<li>none; after "Break something" they take half a minute'}</ul>
<h2>Faults</h2><p>Switched on here, a fault hits every order; <code>demo/fault.sh</code> can name single ones.</p>
<table>{rows}</table>"""


class Control(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answers = {"/state": lambda: {
            "faults": shown(), "tickets": tickets, "last_order": int((RUN / "last-order").read_text())}}
        if not self.allowed():
            return
        with lock:
            if self.path == "/":
                self.answer(200, page(), "text/html; charset=utf-8")
            elif self.path in answers:
                self.answer(200, answers[self.path]())
            else:
                self.answer(404, {"error": f"there is no {self.path}"})

    def do_POST(self):
        if not self.allowed():
            return
        url = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        asked = urllib.parse.parse_qs(url.query) | urllib.parse.parse_qs(self.rfile.read(length).decode())
        try:
            done = self.act(url.path.strip("/").split("/"), {name: values[0] for name, values in asked.items()})
        except (ValueError, KeyError) as error:
            return self.answer(400, {"error": str(error)})
        if "text/html" in self.headers.get("Accept", ""):
            self.send_response(303)
            self.send_header("Location", "/")
            self.end_headers()
        else:
            self.answer(200, done)

    def act(self, path, asked):
        if path == ["break"]:
            return break_something()
        if path == ["reveal"]:
            return reveal()
        if path == ["off"]:
            return [switch_off(name) for name in list(faults)]
        if len(path) != 3 or path[0] != "faults" or path[1] not in FAULTS or path[2] not in ("on", "off"):
            raise ValueError(f"want /faults/NAME/on or /off with one of {', '.join(FAULTS)}")
        if path[2] == "off":
            return switch_off(path[1])
        orders = asked.get("orders", "")
        if asked.get("service") and asked["service"] not in CONSUMERS:
            raise ValueError(f"want a service of {', '.join(CONSUMERS)}")
        orders = next_orders(1) if orders == "next" else [it for it in orders.split(",") if it]
        return switch_on(path[1], asked.get("service"), orders)

    def allowed(self):
        """Other web pages must not reach this one."""
        hosts = (f"127.0.0.1:{PORT}", f"localhost:{PORT}")
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in hosts and origin in (None, *(f"http://{host}" for host in hosts)):
            return True
        self.answer(403, {"error": "not from there"})
        return False

    def answer(self, status, body, kind="application/json"):
        body = body if isinstance(body, str) else json.dumps(body) + "\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
save()
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Control).serve_forever()
