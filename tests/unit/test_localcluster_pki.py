"""Every component has an identity that the API server believes, and nobody else reads its key."""

import json
import subprocess
from pathlib import Path

from localcluster.pki import Identity, certificate_command, make_authority, node_identity


def test_a_node_speaks_as_kubernetes_expects() -> None:
    assert node_identity("a").subject == "/O=system:nodes/CN=system:node:a"


def test_only_servers_get_alternative_names() -> None:
    plain = certificate_command(Path("/pki"), Identity("a", "/CN=a"))
    server = certificate_command(Path("/pki"), Identity("a", "/CN=a", "IP:127.0.0.1"))
    assert not any("subjectAltName" in word for word in plain)
    assert "subjectAltName=IP:127.0.0.1" in server


def test_the_authority_signs_all_and_kubeconfigs_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    make_authority(directory)
    for name in ("apiserver", "admin", "proxy"):
        certificate = directory / f"{name}.crt"
        command = ["openssl", "verify", "-CAfile", str(directory / "ca.crt"), str(certificate)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    kubeconfig = directory / "admin.kubeconfig"
    assert kubeconfig.stat().st_mode & 0o077 == 0
    assert json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["server"] == "https://172.30.0.1:443"
