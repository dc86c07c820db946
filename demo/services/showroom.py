"""The showroom: knows how far each car is, for whoever looks at it on the web. A read model: what it
shows is made of the topic of cars alone, and can be made again from it.

  GET /cars/car-1042   {"car_id": "car-1042", "model": "van", "state": "Painted"}"""

import http.server
import json
import os
import sqlite3
import threading

import cars


def open_book():
    book = sqlite3.connect(os.environ["SHOWROOM"])
    book.execute("CREATE TABLE IF NOT EXISTS cars (car TEXT PRIMARY KEY, model TEXT, state TEXT)")
    return book


book = open_book()


def note(car, _record):
    with book:
        book.execute("INSERT INTO cars VALUES (?, ?, ?) ON CONFLICT (car) DO UPDATE SET state = excluded.state",
                     (car["car_id"], car["model"], car["state"]))


class Window(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = open_book().execute("SELECT car, model, state FROM cars WHERE car = ?",
                                    (self.path.removeprefix("/cars/"),)).fetchone()
        car = dict(zip(("car_id", "model", "state"), found)) if found else {"error": "no such car"}
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(car).encode())

    def log_message(self, *_):
        pass


window = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SHOWROOM_PORT"])), Window)
threading.Thread(target=window.serve_forever, daemon=True).start()
cars.read("showroom", note)
