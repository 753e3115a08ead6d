"""An HTTP service: GET /add/X/Y answers the sum, GET /environment where it runs. Run as: gunicorn adder:app"""

import os

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response
from pyramid.view import view_config

VERSION = "1.0.0"


@view_config(route_name="add", request_method="GET")
def add(request):
    try:
        x, y = int(request.matchdict["x"]), int(request.matchdict["y"])
    except ValueError:
        return HTTPBadRequest(text="two whole numbers, please\n")
    return Response(f"{x} + {y} = {x + y}\n", content_type="text/plain")


@view_config(route_name="environment", request_method="GET")
def environment(request):
    return Response(os.environ.get("ENVIRONMENT", "none") + "\n", content_type="text/plain")


def make_app():
    with Configurator() as config:
        config.add_route("add", "/add/{x}/{y}")
        config.add_route("environment", "/environment")
        config.scan(__name__)
        return config.make_wsgi_app()


app = make_app()
