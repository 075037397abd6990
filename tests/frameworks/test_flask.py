import pytest
from flask import Blueprint, Flask, g
from flask.views import MethodView

import tokenry.flask as auth
from tests.support.frameworks import wsgi_caller
from tokenry.testing import FakeClock, FakeIssuer


@pytest.fixture
def issuer():
    return FakeIssuer(clock=FakeClock())


def fields(issuer, **kind):
    return list(issuer.headers("basket", **kind).items())


class Orders(MethodView):
    def get(self):
        return g.token.sub

    @auth.require("orders.write")
    def post(self):
        return "written"


@auth.require("admin")
class Admin(MethodView):
    def get(self):
        return "ok"


@pytest.fixture
def app(issuer, tmp_path):
    (tmp_path / "x.js").write_text("file")
    app = Flask("tokenry_test", static_folder=str(tmp_path), static_url_path="/static")
    auth.init_app(app, issuer.validator())
    app.add_url_rule("/orders", view_func=Orders.as_view("orders"))
    app.add_url_rule("/admin", view_func=Admin.as_view("admin"))
    return app


def test_methods_of_a_view_class_are_guarded_one_by_one_or_together(app, issuer):
    ask = wsgi_caller(app)
    assert ask("GET", "/orders", fields(issuer)).body == b"basket"
    assert ask("POST", "/orders", fields(issuer)).status == 403
    assert ask("POST", "/orders", fields(issuer, scope="orders.write")).status == 200
    assert ask("GET", "/admin", fields(issuer, scope="x")).status == 403
    assert ask("GET", "/admin", fields(issuer, scope="admin")).status == 200
    assert ask("GET", "/admin", []).status == 401


def test_static_files_are_closed_unless_their_path_is_public(app, issuer):
    assert wsgi_caller(app)("GET", "/static/x.js", []).status == 401
    other = Flask("tokenry_test", static_folder=app.static_folder, static_url_path="/static")
    auth.init_app(other, issuer.validator(), public=["/static/*"])
    assert wsgi_caller(other)("GET", "/static/x.js", []).status == 200
    assert [str(route.access) for route in auth.routes(other)] == ["public"]


def test_it_is_looked_at_before_what_the_application_does_before_a_request(issuer):
    app, ran = Flask("tokenry_test"), []
    app.before_request(lambda: ran.append("early"))
    auth.init_app(app, issuer.validator())
    app.before_request(lambda: ran.append("late"))
    wsgi_caller(app)("GET", "/", [])
    assert ran == []


def test_blueprints_are_closed_too(issuer):
    app, blueprint = Flask("tokenry_test"), Blueprint("shop", "shop", url_prefix="/shop")
    blueprint.add_url_rule("/plain", "plain", lambda: "ok")
    blueprint.add_url_rule("/open", "open", auth.public(lambda: "ok"))
    auth.init_app(app, issuer.validator())
    app.register_blueprint(blueprint)
    ask = wsgi_caller(app)
    assert (ask("GET", "/shop/plain", []).status, ask("GET", "/shop/open", []).status) == (401, 200)
    listed = {route.path: str(route.access) for route in auth.routes(app)}
    assert (listed["/shop/plain"], listed["/shop/open"]) == ("any valid token", "public")


def test_a_required_scope_without_init_app_runs_nothing():
    app = Flask("tokenry_test")
    app.testing = True
    app.add_url_rule("/", "plain", auth.require("a")(lambda: "ok"))
    with pytest.raises(RuntimeError, match=r"without tokenry\.flask"):
        wsgi_caller(app)("GET", "/", [])
    assert {str(route.access) for route in auth.routes(app) if route.path == "/"} == {"a"}


def test_scopes_hold_when_a_wrapper_hides_the_mark(issuer):
    app = Flask("tokenry_test")
    auth.init_app(app, issuer.validator())
    guarded = auth.require("a")(lambda: "ok")

    def unmarked():
        return guarded()

    app.add_url_rule("/", "plain", unmarked)
    ask = wsgi_caller(app)
    assert ask("GET", "/", fields(issuer, scope="b")).status == 403
    assert ask("GET", "/", fields(issuer, scope="a")).status == 200


def test_the_first_request_of_a_process_starts_the_validator():
    from tokenry import TokenValidator

    with FakeIssuer() as issuer:
        app = Flask("tokenry_test")
        validator = TokenValidator(issuer.issuer, audience=issuer.audience)
        auth.init_app(app, validator)
        app.add_url_rule("/", "plain", lambda: g.token.sub)
        assert issuer.requests == ()
        try:
            assert wsgi_caller(app)("GET", "/", fields(issuer)).body == b"basket"
        finally:
            validator.stop()
