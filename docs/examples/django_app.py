"""An application that lets its users into documents of Plait, with Django in a single file.

    pip install django pyjwt
    export PLAIT_TOKEN_SECRET=$(plait token secret)
    plait serve &
    python django_app.py

Open http://localhost:8001 and log in as ann (password: ann), who may edit, or as bob, who may read.
Users and sessions are Django's own; what a project needs of this is the view `token`.
"""

import os
import secrets
import sys
import time
from pathlib import Path

import django
import jwt
from django.conf import settings
from django.core.management import call_command, execute_from_command_line

HERE = Path(__file__).parent
PLAIT_URL = os.environ.get("PLAIT_URL", "ws://localhost:8000/ws")
TOKEN_SECRET = os.environ.get("PLAIT_TOKEN_SECRET", "").split(" ")[0]
TOKEN_SECONDS = 600

RIGHTS = {"minutes": {"ann": "write", "bob": "read"}}

LOGIN = """
<!doctype html>
<title>Log in</title>
<form method="post">{% csrf_token %}{{ form.as_p }}<button>Log in</button></form>
"""

settings.configure(
    DEBUG=False,
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(50),
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("DJANGO_DATABASE", "django_app.sqlite3"),
        }
    },
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    ("django.template.loaders.locmem.Loader", {"registration/login.html": LOGIN})
                ]
            },
        }
    ],
    LOGIN_URL="/login",
    LOGIN_REDIRECT_URL="/",
    # The page reads it to send it back with its request for a token.
    CSRF_COOKIE_HTTPONLY=False,
)
django.setup()

from django.contrib.auth.decorators import login_required  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.auth.views import LoginView  # noqa: E402
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.cache import never_cache  # noqa: E402
from django.views.decorators.csrf import ensure_csrf_cookie  # noqa: E402
from django.views.decorators.http import require_GET, require_POST  # noqa: E402


@never_cache
@require_POST
@login_required
def token(request: HttpRequest) -> HttpResponse:
    """Answer with a token for a document, signed with the secret that Plait has too."""
    document = request.GET.get("document", "")
    name = request.user.get_username()
    access = RIGHTS.get(document, {}).get(name)
    if access is None:
        return JsonResponse({"detail": "you have no right to this document"}, status=403)
    # In grants an asterisk stands for anything, so one in a name is escaped.
    docs = document.replace("\\", "\\\\").replace("*", "\\*")
    now = time.time()
    claims = {
        "sub": name,
        "name": name.title(),
        "grants": [{"docs": docs, "access": access}],
        "iat": now,
        "exp": now + TOKEN_SECONDS,
        "jti": secrets.token_hex(8),
    }
    signed = jwt.encode(claims, TOKEN_SECRET, "HS256")
    return JsonResponse({"url": PLAIT_URL, "token": signed, "seconds": TOKEN_SECONDS})


@require_GET
@login_required
@ensure_csrf_cookie
def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse((HERE / "page.html").read_text())


@require_GET
def client(request: HttpRequest) -> FileResponse:
    return FileResponse((HERE / "plait-client.js").open("rb"), content_type="text/javascript")


urlpatterns = [
    path("", page),
    path("plait-client.js", client),
    path("token", token),
    path("login", LoginView.as_view()),
]


def main() -> None:
    """Make the database with its two users, and serve."""
    if not TOKEN_SECRET:
        raise SystemExit("set PLAIT_TOKEN_SECRET to what Plait has; `plait token secret` makes one")
    call_command("migrate", verbosity=0)
    for name in ("ann", "bob"):
        if not User.objects.filter(username=name).exists():
            User.objects.create_user(name, password=name)
    port = os.environ.get("PORT", "8001")
    execute_from_command_line([sys.argv[0], "runserver", "--noreload", f"localhost:{port}"])


if __name__ == "__main__":
    main()
