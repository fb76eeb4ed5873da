"""The cluster's private network: one bridge that every machine is plugged into.

The addresses are constants, because the whole network exists only inside the
cluster's own namespaces: two clusters use the same ones without meeting. The
sandbox of the control plane is also the router between the nodes' pod
networks, so that a node needs one default route and knows nothing of the others.
"""

from localcluster.commands import run

GATEWAY = "172.30.0.1"
"""The control plane as pods and nodes see it."""
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
DNS_PORT = 53
MAX_NODES = 200
BRIDGE_MAC = "02:00:ac:1e:00:01"
"""A bridge without an address of its own takes the lowest of its ports': when that port's machine dies,
the gateway changes its address and every other node is cut off until its neighbour table has aged."""


def node_address(index: int) -> str:
    return f"172.30.0.{10 + index}"


def node_mac(index: int) -> str:
    """A machine that comes back at an old address has the old hardware address too, for the same reason."""
    return f"02:00:ac:1e:01:{index:02x}"


def pod_cidr(index: int) -> str:
    return f"10.244.{index}.0/24"


def fabric_setup() -> list[list[str]]:
    """Commands for the control plane's sandbox: the bridge, and the API server's service address.

    The API server listens on its service address itself, so that pods reach it
    even before (and without) a service proxy.
    """
    return [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", "br0", "address", BRIDGE_MAC, "type", "bridge"],
        ["ip", "address", "add", f"{GATEWAY}/24", "dev", "br0"],
        ["ip", "link", "set", "br0", "up"],
        ["ip", "address", "add", f"{API_SERVICE}/32", "dev", "lo"],
    ]


FABRIC_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # Router and nodes share one link, so the router would tell nodes of shorter ways.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}


def node_setup(index: int) -> list[list[str]]:
    """Commands for a node's sandbox, once its cable is plugged in."""
    return [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{node_address(index)}/24", "dev", "eth0"],
        ["ip", "link", "set", "eth0", "up"],
        ["ip", "route", "add", "default", "via", GATEWAY],
    ]


NODE_SYSCTLS = {"net/ipv4/ip_forward": "1"}


def plug_in(fabric_pid: int, node_pid: int, index: int) -> None:
    """Lay the cable between a node and the bridge, and route the node's pods over it."""
    inside = ("nsenter", "-t", str(fabric_pid), "-n", "--", "ip")
    port = f"node{index}"
    peer = ("peer", "name", "eth0", "address", node_mac(index), "netns", str(node_pid))
    run(*inside, "link", "add", port, "type", "veth", *peer)
    run(*inside, "link", "set", port, "master", "br0", "up")
    run(*inside, "route", "replace", pod_cidr(index), "via", node_address(index))


PARTITION = "partition"


def partition_rules(open_ports: dict[int, str]) -> str:
    """For `nft` on a node: nothing passes its cable but what goes to these ports of the gateway.

    By hand-made addresses and ports, not by connection, so that what is open at the moment is cut too.
    """
    there = [f"ip daddr {GATEWAY} {kind} dport {port} accept" for port, kind in open_ports.items()]
    back = [f"ip saddr {GATEWAY} {kind} sport {port} accept" for port, kind in open_ports.items()]
    return f"""table inet {PARTITION} {{
  chain in {{
    type filter hook prerouting priority -300
    iifname != "eth0" accept
    {"; ".join(back)}
    drop
  }}
  chain out {{
    type filter hook postrouting priority 300
    oifname != "eth0" accept
    {"; ".join(there)}
    drop
  }}
}}
"""
