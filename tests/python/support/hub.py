"""A server on the loopback interface that answers `datasets` and `huggingface_hub` as
the Hugging Face hub does: what a repository contains, and its files."""

import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse

COMMIT = 40 * "c"
REVISIONS = ("main", COMMIT)


@contextlib.contextmanager
def serve(repositories, gated=(), before_file=lambda name: None):
    """Serves {"owner/name": {"file": bytes}} and yields the URL. The files of those in
    `gated` are refused. Calls `before_file` with the name of each file that it sends.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # noqa: N802
            self.answer()

        def do_HEAD(self):  # noqa: N802
            self.answer()

        def answer(self):
            url = urllib.parse.urlsplit(self.path)
            parts = urllib.parse.unquote(url.path).strip("/").split("/")
            if parts[0] == "api":  # api/KIND/OWNER/NAME/...
                recursive = "recursive=true" in url.query.lower()
                return self.describe("/".join(parts[2:4]), parts[4:], recursive)
            if parts[0] == "datasets":
                del parts[0]
            # OWNER/NAME/resolve/COMMIT/FILE
            return self.send_file("/".join(parts[:2]), "/".join(parts[4:]))

        def describe(self, repository, what, recursive):
            files = repositories.get(repository)
            if files is None:
                return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
            if what[1:] and what[1] not in REVISIONS:
                return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            if what[:1] == ["tree"]:
                found = entries(files, "/".join(what[2:]), recursive)
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
            if repository in gated:
                return self.send(403, b"", {"X-Error-Code": "GatedRepo"})
            if self.command == "GET":
                before_file(name)
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


def entries(files, folder, recursive):
    """Files and directories in a directory, as the hub lists them; recursive: only
    files, also of directories below."""
    start = folder + "/" if folder else ""
    below = [name for name in files if name.startswith(start)]
    parts = {name: name.removeprefix(start).split("/") for name in below}
    folders = {p[0]: None for p in parts.values() if len(p) > 1}
    return [
        *(
            {"type": "directory", "path": start + name, "oid": digest(name.encode())}
            for name in folders
            if not recursive
        ),
        *(
            {
                "type": "file",
                "path": name,
                "size": len(files[name]),
                "oid": digest(files[name]),
            }
            for name in below
            if recursive or len(parts[name]) == 1
        ),
    ]
