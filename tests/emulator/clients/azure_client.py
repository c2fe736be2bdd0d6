"""Drives the emulator with Microsoft's own Python client: arguments are its URL and its CA's file.

Prints one line a step; the first thing that is not as the real service does it ends it with an error.
"""

import ssl
import sys

import websocket
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.containerinstance import ContainerInstanceManagementClient
from azure.mgmt.containerinstance.models import (
    Container,
    ContainerExecRequest,
    ContainerExecRequestTerminalSize,
    ContainerGroup,
    EnvironmentVariable,
    IpAddress,
    Port,
    ResourceRequests,
    ResourceRequirements,
    Volume,
    VolumeMount,
)

URL, CA = sys.argv[1:3]
TENANT = "11111111-1111-1111-1111-111111111111"
SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
GROUP = "rg-python"


def step(what):
    print(what, flush=True)


def body(*variables):
    return ContainerGroup(
        location="westeurope",
        os_type="Linux",
        restart_policy="Always",
        ip_address=IpAddress(type="Public", ports=[Port(port=80)]),
        volumes=[Volume(name="secret", secret={"key": "dmFsdWU="})],
        containers=[
            Container(
                name="web",
                image="nginx",
                environment_variables=list(variables),
                volume_mounts=[VolumeMount(name="secret", mount_path="/s")],
                resources=ResourceRequirements(requests=ResourceRequests(cpu=1.0, memory_in_gb=1.0)),
            )
        ],
    )


credential = ClientSecretCredential(
    TENANT,
    "22222222-2222-2222-2222-222222222222",
    "any secret",
    authority=URL,
    disable_instance_discovery=True,
    connection_verify=CA,
)
client = ContainerInstanceManagementClient(
    credential,
    SUBSCRIPTION,
    base_url=URL,
    credential_scopes=[URL + "/.default"],
    connection_verify=CA,
    polling_interval=0.05,
)

hello = EnvironmentVariable(name="ACI_EMULATOR_LOG", value="hello\nworld")
secret = EnvironmentVariable(name="PASSWORD", secure_value="HIDE")
poller = client.container_groups.begin_create_or_update(GROUP, "one", body(hello, secret))
created = poller.result(timeout=60)
assert created.provisioning_state == "Succeeded", created.provisioning_state
assert created.instance_view.state == "Running", created.instance_view.state
assert created.ip_address.ip, created.ip_address
assert "HIDE" not in str(created.as_dict())
step("created, polled to its end")

for n in range(4):
    client.container_groups.begin_create_or_update(GROUP, f"more-{n}", body()).result(timeout=60)
names = [group.name for group in client.container_groups.list_by_resource_group(GROUP)]
assert names == ["more-0", "more-1", "more-2", "more-3", "one"], names
assert len(list(client.container_groups.list())) == 5
step("listed, over several pages")

logs = client.containers.list_logs(GROUP, "one", "web", tail=1)
assert logs.content == "world\n", logs.content
step("read logs")

size = ContainerExecRequestTerminalSize(rows=24, cols=80)
request = ContainerExecRequest(command="/bin/sh", terminal_size=size)
session = client.containers.execute_command(GROUP, "one", "web", request)
socket = websocket.create_connection(
    session.web_socket_uri, sslopt={"ca_certs": CA, "cert_reqs": ssl.CERT_REQUIRED}, timeout=60
)
socket.send(session.password)
socket.send_binary(b"echo over\n")
shown = ""
while not shown.endswith("over\r\n# "):
    part = socket.recv()
    shown += part if isinstance(part, str) else part.decode()
socket.send_binary(b"exit\n")
while socket.connected and socket.recv_data()[0] != websocket.ABNF.OPCODE_CLOSE:
    pass
step("exec'ed a shell")

client.container_groups.stop(GROUP, "one")
while client.container_groups.get(GROUP, "one").instance_view.state != "Stopped":
    pass
client.container_groups.begin_start(GROUP, "one").result(timeout=60)
assert client.container_groups.get(GROUP, "one").instance_view.state == "Running"
client.container_groups.begin_restart(GROUP, "one").result(timeout=60)
step("stopped, started and restarted")

usages = {usage.name.value: usage.current_value for usage in client.location.list_usage("westeurope")}
assert usages["ContainerGroups"] == 5, usages
assert any(image.image for image in client.location.list_cached_images("westeurope"))
assert any(c.capabilities.max_cpu for c in client.location.list_capabilities("westeurope"))
step("read usages, images and capabilities")

try:
    client.container_groups.begin_create_or_update(GROUP, "Bad_Name", body())
    raise AssertionError("a bad name was accepted")
except HttpResponseError as error:
    assert error.error.code == "InvalidContainerGroupName", error
# Deleted while it is restarting, so that the delete is a long-running one.
client.container_groups.begin_delete(GROUP, "one").result(timeout=60)
client.container_groups.begin_delete(GROUP, "more-0").result(timeout=60)
for name in ["one", "more-0"]:
    try:
        client.container_groups.get(GROUP, name)
        raise AssertionError("it is still there")
    except ResourceNotFoundError as error:
        assert error.error.code == "ResourceNotFound", error
step("deleted")
