"""What monitors ask for: whether this program runs, whether the service can search, and the metrics."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sentinel.monitor.metrics import exposition
from sentinel.monitor.status import CRITICAL, lines, read_status
from sentinel.web.desk import Desk, Visitor

PROMETHEUS = "text/plain; version=0.0.4"


def healthz(_: Desk, __: Request, ___: Visitor) -> Response:
    """Say that this program runs."""
    return PlainTextResponse("ok\n")


def readyz(desk: Desk, _: Request, __: Visitor) -> Response:
    """Say whether the service can search; 503 if its state is critical or unknown."""
    status = read_status(desk.config, lambda: desk.store)
    return PlainTextResponse(f"{lines(status)[0]}\n", 503 if status.level >= CRITICAL else 200)


def metrics(desk: Desk, _: Request, __: Visitor) -> Response:
    """Return the metrics for Prometheus."""
    return Response(exposition(desk.config, desk.store, desk.stages), media_type=PROMETHEUS)
