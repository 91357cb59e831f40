"""A server on the loopback interface that answers `datasets` and `huggingface_hub` as
the Hugging Face hub does: what a repository contains, and its files."""

import contextlib
import hashlib
import http.server
import json
import socket
import threading
import urllib.parse

COMMIT = 40 * "c"
REVISIONS = ("main", COMMIT)
PART = 1 << 14  # bytes per write


@contextlib.contextmanager
def serve(
    repositories,
    gated=(),
    before_file=lambda name: None,
    before_part=lambda name, count: None,
    ranges=True,
):
    """Serves {"owner/name": {"file": bytes}} and yields the URL. The files of those in
    `gated` are refused. Calls `before_file` with the name of each file that it sends,
    `before_part` with "owner/name/file" and the number of bytes of each part. Without
    `ranges` it sends whole files, whatever the request. As the hub, it redirects
    downloads of large files, which are those in .safetensors, to a storage.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            # The system accepts no more than this before the client reads.
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PART)
            super().setup()

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
            # storage/OWNER/NAME/resolve/COMMIT/FILE
            if parts[0] == "storage":
                del parts[0]
            elif self.command == "GET" and parts[-1].endswith(".safetensors"):
                return self.send(302, b"", {"Location": f"/storage{self.path}"})
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
                found["siblings"] = [
                    {"rfilename": name, "size": len(data)}
                    for name, data in files.items()
                ]
            else:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self.send(200, json.dumps(found).encode(), {})

        def send_file(self, repository, name):
            data = repositories.get(repository, {}).get(name)
            if data is None:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            if repository in gated:
                return self.send(403, b"", {"X-Error-Code": "GatedRepo"})
            headers = {"ETag": f'"{digest(data)}"', "X-Repo-Commit": COMMIT}
            if self.command == "HEAD":
                return self.send(200, data, headers)
            before_file(name)

            def before(count):
                before_part(f"{repository}/{name}", count)

            asked = self.headers.get("Range")
            if not ranges or asked is None:
                return self.send(200, data, headers, before)
            first, last = asked.removeprefix("bytes=").split("-")
            part = data[int(first) : int(last) + 1 if last else None]
            end = int(first) + len(part) - 1
            headers["Content-Range"] = f"bytes {first}-{end}/{len(data)}"
            return self.send(206 if part else 416, part, headers, before)

        def send(self, status, data, headers, before=lambda count: None):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            for begin in range(0, len(data), PART):
                part = data[begin : begin + PART]
                before(len(part))
                try:
                    self.wfile.write(part)
                except ConnectionError:  # the client has what it needs
                    self.close_connection = True
                    return

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
