"""mitmproxy sends whatever it is asked for to the benchmark's origin, in plain HTTP."""

from mitmproxy import ctx, http


class Origin:
    def load(self, loader):
        loader.add_option("origin", str, "", "address of the origin")

    def request(self, flow: http.HTTPFlow) -> None:
        host, port = ctx.options.origin.rsplit(":", 1)
        flow.request.scheme, flow.request.host, flow.request.port = "http", host, int(port)


addons = [Origin()]
