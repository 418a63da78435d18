"A hub on this machine: as much of the protocol of huggingface.co as saving and fetching take."

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def handler(root: Path):
    "A handler that keeps the repository user/name in `root`/user/name."

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, body: bytes | dict, status=200, **headers):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def missing(self):
            code = "RepoNotFound" if "/resolve/" not in self.path else "EntryNotFound"
            self.answer({"error": "not found"}, 404, X_Error_Code=code)

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[1:] == ["repos", "create"]:
                asked = json.loads(body)
                name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
                if "/" not in name:
                    name = f"user/{name}"
                (root / name).mkdir(parents=True, exist_ok=True)
                self.answer({"url": f"http://{self.headers['Host']}/{name}", "id": name})
            elif parts[1] == "validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif parts[4] == "preupload":
                files = json.loads(body)["files"]
                modes = [{"path": f["path"], "uploadMode": "regular"} for f in files]
                self.answer({"files": [m | {"shouldIgnore": False} for m in modes]})
            elif parts[4] == "commit":
                folder = root / parts[2] / parts[3]
                for line in body.splitlines():
                    row = json.loads(line)
                    if row["key"] == "file":
                        path = folder / row["value"]["path"]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(base64.b64decode(row["value"]["content"]))
                url = f"http://{self.headers['Host']}/{parts[2]}/{parts[3]}/commit/{'1' * 40}"
                self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": url})
            else:
                self.missing()

        def do_GET(self):
            path = self.path.split("?")[0].strip("/")
            parts = path.split("/")
            if parts[:2] == ["api", "models"] and (folder := root / parts[2] / parts[3]).is_dir():
                names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
                if "tree" in parts:
                    sizes = {name: (folder / name).stat().st_size for name in sorted(names)}
                    rows = [{"type": "file", "path": n, "size": s} for n, s in sizes.items()]
                    return self.answer(json.dumps([r | {"oid": "2" * 40} for r in rows]).encode())
                rows = [{"rfilename": name} for name in sorted(names)]
                name = f"{parts[2]}/{parts[3]}"
                about = {"id": name, "modelId": name, "sha": "1" * 40, "siblings": rows}
                self.answer(about | {"private": False, "tags": [], "downloads": 0, "likes": 0})
            elif len(parts) > 4 and parts[2] == "resolve":
                file = root / parts[0] / parts[1] / "/".join(parts[4:])
                if not file.is_file():
                    return self.missing()
                data = file.read_bytes()
                tag = f'"{hashlib.sha256(data).hexdigest()}"'
                self.answer(data, ETag=tag, X_Repo_Commit="1" * 40, Accept_Ranges="none")
            else:
                self.missing()

        do_HEAD = do_GET

    return Hub


@contextlib.contextmanager
def local_hub(root: Path):
    "The address of a hub that keeps its repositories in `root`."
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(root))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
