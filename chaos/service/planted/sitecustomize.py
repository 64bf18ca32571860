"""Python imports this before anything else when its folder is on the path: how faults get into a real server."""

from chaos.service.faults import plant

plant()
