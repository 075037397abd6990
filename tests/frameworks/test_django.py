import sys
import types

import pytest

from tests.support.frameworks import asgi_caller, configure_django, use_urls, wsgi_caller
from tokenry.testing import FakeClock, FakeIssuer

configure_django()

from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.views import View  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402
from rest_framework.viewsets import ViewSet  # noqa: E402

from tokenry.django import BearerAuthentication, has_scopes, public, require, routes  # noqa: E402


@pytest.fixture
def issuer():
    return FakeIssuer(clock=FakeClock())


def fields(issuer, **kind):
    return list(issuer.headers("basket", **kind).items())


@pytest.fixture
def serve(issuer):
    overrides = []

    def serve(patterns, **settings):
        override = override_settings(ROOT_URLCONF=use_urls(patterns), TOKENRY_VALIDATOR=issuer.validator(), **settings)
        override.enable()
        overrides.append(override)
        return wsgi_caller(WSGIHandler())

    yield serve
    for override in reversed(overrides):
        override.disable()


def plain(request):
    return HttpResponse(request.token.sub)


@public
def is_open(_request):
    return HttpResponse("open")


class Orders(View):
    def get(self, request):
        return HttpResponse(request.token.sub)

    @require("orders.write")
    def post(self, _request):
        return HttpResponse("written")


@require("admin")
class Admin(View):
    def get(self, _request):
        return HttpResponse("ok")


def test_methods_of_a_view_class_are_guarded_one_by_one_or_together(serve, issuer):
    ask = serve([path("orders", Orders.as_view()), path("admin", Admin.as_view())])
    assert ask("GET", "/orders", fields(issuer)).body == b"basket"
    assert ask("POST", "/orders", fields(issuer)).status == 403
    assert ask("POST", "/orders", fields(issuer, scope="orders.write")).status == 200
    assert ask("GET", "/admin", fields(issuer)).status == 403
    assert ask("GET", "/admin", fields(issuer, scope="admin")).status == 200
    assert ask("GET", "/admin", []).status == 401


def test_included_routes_and_public_paths(serve):
    below = [path("plain", plain), path("open", is_open)]
    ask = serve([path("v1/", include((below, "shop"))), path("static/x", plain)], TOKENRY_PUBLIC_PATHS=["/health"])
    assert ask("GET", "/v1/plain", []).status == 401
    assert ask("GET", "/v1/open", []).status == 200
    listed = {route.path: str(route.access) for route in routes()}
    assert listed == {"/v1/plain": "any valid token", "/v1/open": "public", "/static/x": "any valid token"}


class ChangeRoutes:
    """A middleware below ours that serves other routes than those that we looked at."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.urlconf = use_urls([path("x", plain)])
        return self.get_response(request)


def test_a_middleware_that_changes_the_routes_opens_nothing(serve, issuer, monkeypatch):
    module = types.ModuleType("tokenry_test_middleware")
    module.Change = ChangeRoutes
    monkeypatch.setitem(sys.modules, "tokenry_test_middleware", module)
    ask = serve([path("x", is_open)], MIDDLEWARE=["tokenry.django.AuthMiddleware", "tokenry_test_middleware.Change"])
    assert ask("GET", "/x", []).status == 401
    assert ask("GET", "/x", fields(issuer)).status == 401  # a public route was looked at, so no token was judged


def test_a_required_scope_without_the_middleware_runs_nothing(serve, issuer):
    ask = serve([path("x", require("a")(plain))], MIDDLEWARE=[], DEBUG_PROPAGATE_EXCEPTIONS=True)
    with pytest.raises(RuntimeError, match=r"without tokenry\.django"):
        ask("GET", "/x", fields(issuer, scope="a"))


def test_scopes_hold_when_a_wrapper_hides_the_mark(serve, issuer):
    guarded = require("a")(plain)

    def unmarked(request):
        return guarded(request)

    ask = serve([path("x", unmarked)])
    assert ask("GET", "/x", fields(issuer, scope="b")).status == 403
    assert ask("GET", "/x", fields(issuer, scope="a")).status == 200


def test_without_a_validator_nothing_starts(serve):
    with override_settings(ROOT_URLCONF=use_urls([])), pytest.raises(ImproperlyConfigured, match="TOKENRY_VALIDATOR"):
        WSGIHandler()


def test_synchronous_views_work_over_asgi(serve, issuer):
    serve([path("x", plain)])
    ask = asgi_caller(ASGIHandler())
    assert ask("GET", "/x", []).status == 401
    assert ask("GET", "/x", fields(issuer)).body == b"basket"


# --- Django REST framework ---


class RestOrders(APIView):
    authentication_classes = [BearerAuthentication]  # noqa: RUF012 - DRF's form
    permission_classes = [IsAuthenticated, has_scopes("orders.read")]  # noqa: RUF012

    def get(self, request):
        return Response({"caller": request.auth.sub, "user": str(request.user)})


class RestSet(ViewSet):
    authentication_classes = [BearerAuthentication]  # noqa: RUF012
    permission_classes = [IsAuthenticated]  # noqa: RUF012

    def list(self, request):
        return Response(request.user.info.sub)

    @require("orders.write")
    def create(self, _request):
        return Response("made")


@pytest.fixture(params=[[], ["tokenry.django.AuthMiddleware"]], ids=["alone", "with the middleware"])
def rest(request, serve):
    patterns = [path("orders", RestOrders.as_view()), path("set", RestSet.as_view({"get": "list", "post": "create"}))]
    return serve(patterns, MIDDLEWARE=request.param, TOKENRY_REALM="shop")


def test_rest_views_know_the_caller(rest, issuer):
    answer = rest("GET", "/orders", fields(issuer, scope="orders.read"))
    assert answer.json == {"caller": "basket", "user": "basket"}


def test_rest_refusals_have_status_and_challenge(rest, issuer):
    def outcome(**kind):
        answer = rest("GET", "/orders", fields(issuer, **kind) if kind else [])
        return answer.status, answer.challenge

    assert outcome() == (401, 'Bearer realm="shop"')
    assert outcome(expired=True) == (401, 'Bearer realm="shop", error="invalid_token"')
    assert outcome(scope="x") == (403, 'Bearer realm="shop", error="insufficient_scope", scope="orders.read"')


def test_rest_says_503_when_it_cannot_judge(rest, issuer):
    headers = fields(issuer, scope="orders.read")
    issuer.down = True
    issuer.clock.advance(minutes=20)
    answer = rest("GET", "/orders", headers)
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0


def test_actions_of_a_viewset_can_be_guarded(rest, issuer):
    assert rest("GET", "/set", fields(issuer)).json == "basket"
    assert rest("POST", "/set", fields(issuer)).status == 403
    assert rest("POST", "/set", fields(issuer, scope="orders.write")).status == 200
