"""An application that lets its users into documents of Plait, with FastAPI.

    pip install fastapi uvicorn pyjwt
    export PLAIT_TOKEN_SECRET=$(plait token secret)
    plait serve &
    python fastapi_app.py

Open http://localhost:8001 as ann (password: ann), who may edit, and in another browser as bob, who
may read. Here users are a table and log in with HTTP Basic; put your own in their place.

It also answers Plait's question who a token belongs to (`auth_url`), for applications that would
rather hand out sessions of their own than sign tokens:

    export PLAIT_AUTH_SECRET=$(plait token secret)
    plait serve --auth-url http://127.0.0.1:8001/plait/who &
    python fastapi_app.py
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

HERE = Path(__file__).parent
PLAIT_URL = os.environ.get("PLAIT_URL", "ws://localhost:8000/ws")
TOKEN_SECRET = os.environ.get("PLAIT_TOKEN_SECRET", "").split(" ")[0]
AUTH_SECRET = os.environ.get("PLAIT_AUTH_SECRET", "")
TOKEN_SECONDS = 600

USERS = {"ann": "ann", "bob": "bob"}
RIGHTS = {"minutes": {"ann": "write", "bob": "read"}}
SESSIONS: dict[str, str] = {}

app = FastAPI()


def user(credentials: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
    """Return who is logged in."""
    known = USERS.get(credentials.username, "")
    if not known or not secrets.compare_digest(known.encode(), credentials.password.encode()):
        raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
    return credentials.username


User = Annotated[str, Depends(user)]


def grants(name: str, document: str | None) -> list[dict[str, str]]:
    """Return what a user may do with a document. In grants an asterisk stands for anything, so one
    in a name is escaped.
    """
    access = RIGHTS.get(document or "", {}).get(name)
    if document is None or access is None:
        return []
    return [{"docs": document.replace("\\", "\\\\").replace("*", "\\*"), "access": access}]


# A token for the document, signed with the secret that Plait has too


@app.post("/token")
def token(document: str, name: User, response: Response) -> dict[str, Any]:
    allowed = grants(name, document)
    if not allowed:
        raise HTTPException(403, "you have no right to this document")
    now = time.time()
    claims = {
        "sub": name,
        "name": name.title(),
        "grants": allowed,
        "iat": now,
        "exp": now + TOKEN_SECONDS,
        "jti": secrets.token_hex(8),
    }
    response.headers["Cache-Control"] = "no-store"
    return {
        "url": PLAIT_URL,
        "token": jwt.encode(claims, TOKEN_SECRET, "HS256"),
        "seconds": TOKEN_SECONDS,
    }


# Or a session of the application, and Plait asks whose it is


@app.post("/session")
def session(name: User, response: Response) -> dict[str, Any]:
    key = secrets.token_urlsafe()
    SESSIONS[key] = name
    response.headers["Cache-Control"] = "no-store"
    return {"url": PLAIT_URL, "token": key, "seconds": TOKEN_SECONDS}


@app.post("/plait/who")
async def who(request: Request) -> dict[str, Any]:
    body = await request.body()
    if not signed_by_plait(request, body):
        raise HTTPException(400, "this is not signed with auth_secret")
    question = json.loads(body)
    name = SESSIONS.get(question["token"])
    if name is None:
        raise HTTPException(401)
    return {"sub": name, "name": name.title(), "grants": grants(name, question["document"])}


def signed_by_plait(request: Request, body: bytes) -> bool:
    """Check the signature (https://www.standardwebhooks.com), and that it is not an old one."""
    id = request.headers.get("webhook-id", "")
    at = request.headers.get("webhook-timestamp", "")
    if not AUTH_SECRET or not at.isdecimal() or abs(time.time() - int(at)) > 300:
        return False
    signed = f"{id}.{at}.".encode() + body
    mac = hmac.new(AUTH_SECRET.encode(), signed, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(mac).decode()
    given = request.headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected.encode(), each.encode()) for each in given)


# The page


@app.get("/")
def page(_: User) -> FileResponse:
    return FileResponse(HERE / "page.html")


@app.get("/plait-client.js")
def client() -> FileResponse:
    return FileResponse(HERE / "plait-client.js", media_type="text/javascript")


if __name__ == "__main__":
    if not TOKEN_SECRET and not AUTH_SECRET:
        raise SystemExit("set PLAIT_TOKEN_SECRET to what Plait has; `plait token secret` makes one")
    uvicorn.run(app, port=int(os.environ.get("PORT", "8001")))
