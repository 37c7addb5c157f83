"""A small site with Flask. Its files are in `files` beside it."""

import fcntl
import pathlib

from flask import Flask, request, send_from_directory

here = pathlib.Path(__file__).parent
app = Flask(__name__, static_folder=None)
app.url_map.strict_slashes = False


def action(name):
    with open(here / "actions.log", "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.write(f"{request.headers.get('X-Probe', 'unknown')} {name}\n")
    return f"GOODS-{name}"


@app.before_request
def actions():
    # Before the routes, so whatever the method.
    path = request.path.rstrip("/")
    method = request.headers.get("X-HTTP-Method-Override") or request.args.get("_method") or request.method
    if path == "/api/send":
        return action("send")
    if path == "/api/order":
        return action("order") if method.upper() == "POST" else "a form"


@app.route("/")
@app.route("/index.php")
def home():
    page = request.args.get("p", 0, type=int)
    return "GOODS-post" if page > 0 else "home"


@app.route("/free")
def free():
    return "free"


@app.route("/articles/<name>")
def article(name):
    return "GOODS-article"


@app.route("/shop/")
def shop():
    return send_from_directory(here / "files", "shop/index.html")


@app.route("/posts/<name>/")
def post(name):
    return send_from_directory(here / "files", f"posts/{name}/index.html")


@app.route("/<path:name>")
def files(name):
    return send_from_directory(here / "files", name)
