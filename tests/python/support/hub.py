"""A server on the loopback interface that answers `datasets` as the Hugging Face hub
does: what a repository contains, and its files."""

import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse

COMMIT = 40 * "c"


@contextlib.contextmanager
def serve(repositories):
    """Serves {"owner/name": {"file": bytes}} and yields the URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # noqa: N802
            self.answer()

        def do_HEAD(self):  # noqa: N802
            self.answer()

        def answer(self):
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            kind, *rest = path.strip("/").split("/")
            if kind == "api":
                self.describe("/".join(rest[1:3]), rest[3:])
            else:  # datasets/OWNER/NAME/resolve/COMMIT/FILE
                self.send_file("/".join(rest[:2]), "/".join(rest[4:]))

        def describe(self, repository, what):
            files = repositories.get(repository)
            if files is None:
                return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
            if what[:1] == ["tree"]:
                found = entries(files, "/".join(what[2:]))
            elif what[:1] in ([], ["revision"]):
                found = {"id": repository, "sha": COMMIT, "private": False}
                found |= {"tags": [], "downloads": 0, "gated": False}
                found["siblings"] = [{"rfilename": name} for name in files]
            else:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self.send(200, json.dumps(found).encode(), {})

        def send_file(self, repository, name):
            data = repositories.get(repository, {}).get(name)
            if data is None:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self.send(
                200, data, {"ETag": f'"{digest(data)}"', "X-Repo-Commit": COMMIT}
            )

        def send(self, status, data, headers):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def digest(data):
    return hashlib.sha1(data).hexdigest()


def entries(files, folder):
    """Files and directories in a directory, as the hub lists them."""
    start = folder + "/" if folder else ""
    below = [name for name in files if name.startswith(start)]
    parts = {name: name.removeprefix(start).split("/") for name in below}
    folders = {p[0]: None for p in parts.values() if len(p) > 1}
    return [
        *(
            {"type": "directory", "path": start + name, "oid": digest(name.encode())}
            for name in folders
        ),
        *(
            {
                "type": "file",
                "path": name,
                "size": len(files[name]),
                "oid": digest(files[name]),
            }
            for name in below
            if len(parts[name]) == 1
        ),
    ]
