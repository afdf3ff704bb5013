"""Things that several families need."""

from __future__ import annotations

import itertools
import json
import threading
import time
from typing import Any

_names = itertools.count(1)

ORDER = dict(
    Period=1, AutoPay=False, ReceiverCountry="China", ReceiverState="Zhejiang",
    ReceiverCity="Hangzhou", ReceiverDistrict="Xihu", ReceiverTown="Zhuantang", ReceiverZip="310000",
    ReceiverMobile="18800000000", ReceiverName="Li", ReceiverEmail="li@example.com",
    BuyerMessage="none", ReceiverAddress="1", ChargeType="PREPAY",
)


def name(prefix: str = "n") -> str:
    return f"{prefix}-{next(_names)}"


def gateway(api: Any, model: str = "sag-vcpe", activate: bool = True, **more: Any) -> tuple[Any, list[Any]]:
    """An instance and its serial numbers."""
    order = dict(ORDER, HardWareSpec=model, MaxBandWidth=50, Name=name("gw"), Description="test")
    order["HaType"] = "warm_backup" if model == "sag-vcpe" else "no_backup"
    order.update(more)
    sag = api.call("CreateSmartAccessGateway", **order)["SmartAGId"]
    if activate:
        api.call("ActivateSmartAccessGateway", SmartAGId=sag)
    row = api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)
    return sag, [d["SerialNumber"] for d in row.get("Devices", {}).get("Device", [])]


def software(api: Any, users: int = 5, **more: Any) -> Any:
    order = dict(Period=1, AutoPay=False, ChargeType="PREPAY", UserCount=users, DataPlan=5)
    return api.call("CreateSmartAccessGatewaySoftware", **order, **more)["SmartAGId"]


STATE = {
    "SoftwareVersion": "0.1.0",
    "MonitorVersion": "0.1.0",
    "StartupTime": 1_623_778_423_000,
    "VpnState": "Normal",
    "IpsecStatus": "up",
    "Ports": [
        {"PortName": "0", "Role": "WAN", "Status": "Up", "Mac": "02:00:00:00:00:01"},
        {"PortName": "1", "Role": "LAN", "Status": "Up", "Mac": "02:00:00:00:00:02"},
    ],
    "Wans": [{"PortName": "0", "IP": "203.0.113.7", "Mask": "255.255.255.0", "Gateway": "203.0.113.1",
              "TrafficState": "Normal"}],
    "Routes": [{"DestinationCidr": "0.0.0.0/0", "NextHop": "203.0.113.1", "PortName": "0",
                "Cost": "[0/0]", "RouteProtocol": "STATIC", "ConflictCidrs": []}],
    "Dns": {"MasterDns": "223.5.5.5", "SlaveDns": "223.6.6.6"},
    "TrafficRate": 1243.2,
    "DropRate": 0.5,
    "LinkBackup": [{"MainLinkId": "wan0", "MainLinkState": "up", "BackupLinkId": "wan1",
                    "BackupLinkState": "down", "LinkLevelBackupState": "ON",
                    "LinkLevelBackupType": "StandbyMode"}],
    "AccessPointNetworkQualities": [{"Id": 101, "Rtt": "4.98", "Loss": "0.00%"}],
}


def report(agent: Any, sag: str, sn: str, **more: Any) -> None:
    """The device is online from now on."""
    agent.extension("ReportSmartAGState", SmartAGId=sag, SmartAGSn=sn, State=json.dumps({**STATE, **more}))


def answer_probe(agent: Any, sag: str, sn: str, **loss: str) -> threading.Thread:
    """A device that measures the paths to access points when it is told to; `loss` by number (`p101="100.00%"`)."""

    def run() -> None:
        for _ in range(200):
            config = agent.extension("PullSmartAGConfig", SmartAGId=sag, SmartAGSn=sn, Revision=0)["Config"]
            probes = [c["Args"] for c in config.get("Commands", []) if c["Name"] == "ProbeAccessPoints"]
            if probes:
                row = {"Rtt": "4.98"}
                seen = [{**row, "Id": p["Id"], "Loss": loss.get(f"p{p['Id']}", "0.00%")} for p in probes[0]["AccessPoints"]]
                report(agent, sag, sn, AccessPointProbeId=probes[0]["ProbeId"], AccessPointNetworkQualities=seen)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def apply(agent: Any, sag: str, sn: str, success: bool = True, message: str = "", **more: Any) -> Any:
    """Pulls the configuration and reports it as in force."""
    got = agent.extension("PullSmartAGConfig", SmartAGId=sag, SmartAGSn=sn, Revision=0)
    agent.extension(
        "ReportSmartAGConfigResult", SmartAGId=sag, SmartAGSn=sn, Revision=got["Revision"],
        Success=str(success).lower(), Message=message, **more,
    )
    return got["Config"]


def rows(answer: Any, *path: str) -> Any:
    for p in path:
        answer = answer[p]
    return answer
