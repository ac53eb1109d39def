"""What fuzzing knows beyond the description: names of things that are there, and
which requests would wait for ever or leave this computer.

A request is the same in each run with the same seed: what is put into it depends on
nothing but itself.
"""

import os
import re
import zlib

import requests
import schemathesis

URL = os.environ["FUZZ_URL"]
REGISTRY = os.environ["FUZZ_REGISTRY"]
IMAGE = os.environ["FUZZ_IMAGE"]
# Ids, which a rename does not change.
RUNNING = os.environ["FUZZ_RUNNING"]
IDLE = os.environ["FUZZ_IDLE"]
# A name: what does not run goes with a prune, and comes again.
STOPPED = "fuzz-stopped"
TIMEOUT = 30


def chosen(case, of=3):
    """Whether this request is one of those that are about things which are there."""
    text = f"{case.method} {case.path} {case.path_parameters} {case.query} {case.body!r}"
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % of != 0


def ask(method, path, **more):
    """A request beside the fuzzed ones: it must be answered, whatever the answer is."""
    return requests.request(method, URL + path, timeout=TIMEOUT, **more)


def container(case):
    """The container that a request is about."""
    path, query = case.path, case.query
    if path.endswith("/wait"):
        query["condition"] = "not-running"
    if path.endswith(("/wait", "/start", "/export")):
        return STOPPED
    if path.endswith(("/stop", "/restart")) and re.fullmatch(r"-?\d+", str(query.get("t", 0))):
        # Docker, too, waits as long as it is told, or for ever when that is negative.
        query["t"] = str(abs(int(query.get("t", 0))) % 2)
    if path.endswith("/unpause"):
        # One that is not paused is no client's mistake to Docker, which says 500.
        ask("POST", f"/containers/{IDLE}/pause")
    if path.endswith(("/update", "/rename", "/pause", "/unpause", "/stop", "/kill", "/restart")):
        return IDLE
    if path.endswith("/attach"):
        query["stream"] = "0"
    if path.endswith("/logs"):
        query["follow"] = "0"
    if path.endswith("/stats"):
        query["stream"] = "0"
        query["one-shot"] = "1"
    return RUNNING


def is_there(id):
    """Whether an id is one of those, or the beginning of one: that is as good."""
    return id == STOPPED or any(whole.startswith(id) for whole in (RUNNING, IDLE))


def within_registry(name):
    """A name of an image that is looked for in the tests' registry alone."""
    return f"{REGISTRY}/{name}" if isinstance(name, str) and name else name


# Bytes as they are, most of which are no tar.
schemathesis.serializer.alias("application/x-tar", "application/octet-stream")


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.path
    case.query = dict(case.query or {})
    case.path_parameters = dict(case.path_parameters or {})
    there = chosen(case)
    body = case.body if isinstance(case.body, dict) else {}
    if "/containers/{id}/" in path:
        # Whatever the id is: nobody waits for a container that goes on.
        id = container(case)
        if there or is_there(str(case.path_parameters.get("id"))):
            case.path_parameters["id"] = id
    if path == "/containers/{id}" and is_there(str(case.path_parameters.get("id"))):
        # What others ask about is not removed.
        case.path_parameters["id"] = STOPPED
    if path == "/commit" and there:
        case.query["container"] = STOPPED
    if path == "/containers/create" and there and body:
        body["Image"] = IMAGE
    if path.startswith("/networks/{name}") and case.method != "DELETE" and there:
        case.path_parameters["name"] = "fuzz-network"
        if "Container" in body and chosen(case, 5):
            body["Container"] = IDLE
    if path == "/volumes/{name}" and case.method == "GET" and there:
        case.path_parameters["name"] = "fuzz-volume"
    if path.endswith("/backup") and there:
        case.path_parameters["name"] = "fuzz-volume"
    if path.startswith("/images/{name}/") and there:
        pushed = f"{REGISTRY}/busybox:latest"
        case.path_parameters["name"] = pushed if path.endswith("/push") else IMAGE
    if path == "/images/get" and there:
        case.query["names"] = [IMAGE]
    # Nothing is asked of the world outside.
    if path.startswith(("/distribution/", "/dctl/manifest/")):
        name = case.path_parameters.get("name")
        case.path_parameters["name"] = f"{REGISTRY}/busybox" if there else within_registry(name)
    if path == "/images/search":
        case.query["term"] = within_registry(case.query.get("term"))
    if path == "/images/create":
        if case.query.get("fromSrc"):
            case.query["fromSrc"] = "-"
        if "fromImage" in case.query:
            case.query["fromImage"] = within_registry(case.query["fromImage"])
    if path == "/auth" and not isinstance(case.body, (list, str, int, float)):
        case.body = {**body, "serveraddress": REGISTRY}
    # These would go on for as long as somebody listens.
    if path == "/events" and not re.match("[a-zA-Z]", str(case.query.get("until", ""))):
        case.query["until"] = "1000000000"
    if path == "/dctl/machine/logs":
        case.query["follow"] = "0"
    if path == "/dctl/machine" and isinstance(body.get("disk_gib"), int):
        # A larger disk is made at once, and stays.
        body["disk_gib"] = min(body["disk_gib"], 64)


@schemathesis.hook
def after_call(context, case, response):
    path, status = case.path, response.status_code
    if path == "/containers/create" and status == 201:
        # What may be created can be started, or says why not.
        id = response.json()["Id"]
        ask("POST", f"/containers/{id}/start")
        ask("DELETE", f"/containers/{id}?force=1&v=1")
    if path == "/containers/{id}/exec" and status == 201:
        id = response.json()["Id"]
        ask("POST", f"/exec/{id}/start", json={"Detach": True})
        ask("POST", f"/exec/{id}/resize?h=1&w=1")
    if path.endswith(("/pause", "/kill", "/stop", "/restart", "/update")):
        ask("POST", f"/containers/{IDLE}/unpause")
        ask("POST", f"/containers/{IDLE}/start")
    if path in ("/containers/prune", "/containers/{id}"):
        make_stopped()


def make_stopped():
    body = {"Image": IMAGE, "Cmd": ["true"]}
    ask("POST", f"/containers/create?name={STOPPED}", json=body)
